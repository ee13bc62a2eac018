"""What a training step costs in FLOPs, and what the device could do at most."""

from __future__ import annotations

import json
import time
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cell import Cell
from benchmarks.cost.counting import training_cost
from benchmarks.data.dataset import DataSet, Source
from benchmarks.training.trainer import build

BATCH = 16
SIZES = {"cpu": 1024, "cuda": 8192}
"""Rows of the square matrices whose product is timed: 2 and 1,100 GFLOPs."""
ROUNDS = 5
LONGEST_SECONDS = 0.25
"""No further round is begun after so long."""

_counted: dict[str, float] = {}


def training_flops(cell: Cell, source: Source, data: DataSet, device: str) -> float:
    """FLOPs of one training step of the cell's method, forwards and backwards, per image.

    Counted while a step runs on zeros, see :func:`benchmarks.cost.counting.training_cost`. It does not depend on the
    seed or, but for odd sub-batches, on the size of the batch, so that a small one is counted.
    """
    settings = cell.as_dict()
    key = json.dumps({name: settings[name] for name in ("method", "model", "dataset")}, sort_keys=True)
    if key not in _counted:
        _, method = build(cell, source, device, data)
        images = max(BATCH, 2 * cell.method.arguments.get("sub_batches", 1))
        x = torch.zeros(images, source.in_channels, source.image_size, source.image_size, device=device)
        y = torch.zeros(images, dtype=torch.int64, device=device)
        cost = training_cost(method, F.cross_entropy, x, y)
        _counted[key] = (cost.forward_flops + cost.backward_flops) / images
    return _counted[key]


@cache
def matmul_rate(device: str, precision: str) -> float:
    """The highest measured FLOP/s of a large square matrix product, with torch's present number of threads.

    Args:
        precision: ``bf16`` multiplies in bfloat16, ``tf32`` on a GPU in TF32, ``float32`` in float32.
    """
    size = SIZES["cuda" if device.startswith("cuda") else "cpu"]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator, device=device).to(dtype) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        torch.mm(a[: size // 8], b)  # wakes up the threads or the GPU's library
        return 2 * size**3 / _fastest(a, b)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _fastest(a: Tensor, b: Tensor) -> float:
    """Seconds of the quickest of some products ``a b``."""
    fastest, begun = float("inf"), _now(a)
    for _ in range(ROUNDS):
        started = _now(a)
        torch.mm(a, b)
        now = _now(a)
        fastest = min(fastest, now - started)
        if now - begun > LONGEST_SECONDS:
            break
    return fastest


def _now(of: Tensor) -> float:
    """The time when the device of ``of`` has done all its work."""
    if of.is_cuda:
        torch.cuda.synchronize(of.device)
    return time.perf_counter()
