"""Measures the speed of the training engine on one device, as ratios where the machine may be shared.

Two things that are compared alternate, and the ratio is the median over the pairs, so that a change of the machine's
load meets both. On a CPU the time is the processor time of this process with one thread, on a GPU wall time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.config import load
from benchmarks.cost.counting import count
from benchmarks.data.batches import epoch_batches
from benchmarks.data.corruptions import corrupt
from benchmarks.data.dataset import DataSet
from benchmarks.training.step import numerics
from benchmarks.training.trainer import Trainer

METHODS = {
    "SGD": ["method=sgd"],
    "DAMP, M = 1": ["method=damp", "method.sub_batches=1"],
    "DAMP, M = 8": ["method=damp", "method.sub_batches=8"],
    "SAM, M = 1": ["method=sam", "method.sub_batches=1"],
    "SAM, M = 8": ["method=sam", "method.sub_batches=8"],
    "ASAM, M = 1": ["method=asam", "method.sub_batches=1"],
    "ASAM, M = 8": ["method=asam", "method.sub_batches=8"],
}
CHECKED = {"sgd": 1e-3, "sam": 1e-2}
"""Methods without random numbers of their own, whose losses on a GPU are those on a CPU within this tolerance."""
CHECKED_STEPS = 8
WARM_UP_STEPS = 5
"""Before whole epochs are timed, which would take too long as a warm-up."""
CIFAR_IMAGES = 50_000


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    width: int  # of the ResNet-18; the papers' has 64
    blocks: str  # of its stages
    images: int  # of an epoch, synthetic
    pairs: int  # that a ratio is the median of
    matrix: int  # rows of the square matrices whose product is timed
    copied: int  # bytes of the block whose copying is timed
    corrupted: int  # images that are corrupted
    engines: tuple[str, ...]
    precisions: tuple[str, ...]


SIZES = {
    "cuda": Sizes(
        64,
        "2,2,2,2",
        CIFAR_IMAGES,
        20,
        8192,
        2**30,
        1000,
        ("eager", "compiled", "graph"),
        ("float32", "tf32", "bf16"),
    ),
    "cpu": Sizes(8, "2,2,2,2", 1280, 5, 1024, 2**26, 20, ("eager",), ("float32",)),
    "tiny": Sizes(8, "1", 128, 1, 64, 2**16, 1, ("eager",), ("float32",)),
}
Step = Callable[[], object]


class Device:
    """A device with its clock, and what it can do at most."""

    def __init__(self, name: str, sizes: Sizes) -> None:
        self.name, self.sizes = name, sizes
        self.on_gpu = name.startswith("cuda")

    def seconds(self, work: Step) -> float:
        clock = time.perf_counter if self.on_gpu else time.process_time
        self._wait()
        begun = clock()
        work()
        self._wait()
        return clock() - begun

    def ratio(
        self, work: Step, reference: Step, pairs: int | None = None, warm_ups: int = 2
    ) -> tuple[float, float]:
        """Median of the ratios, and of the seconds of ``work``."""
        for warm_up in (work, reference) * warm_ups:
            warm_up()
        pairs = pairs or self.sizes.pairs
        timed = [(self.seconds(work), self.seconds(reference)) for _ in range(pairs)]
        return statistics.median(a / b for a, b in timed), statistics.median(a for a, _ in timed)

    def matmul_rate(self, precision: str) -> float:
        """FLOP/s of a square matrix product, the best of a few."""
        n = self.sizes.matrix
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b = (torch.randn(n, n, device=self.name).to(dtype) for _ in range(2))
        with numerics(precision if precision == "tf32" else "float32", torch.device(self.name)):
            return 2 * n**3 / min(self.seconds(lambda: a @ b) for _ in range(6))

    def bandwidth(self) -> float:
        """Bytes per second that a copy within the memory reads and writes."""
        block = torch.zeros(self.sizes.copied, dtype=torch.uint8, device=self.name)
        target = torch.empty_like(block)
        return 2 * block.numel() / min(self.seconds(lambda: target.copy_(block)) for _ in range(6))

    def _wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()


def trainer(device: str, sizes: Sizes, engine: str, precision: str, *overrides: str) -> Trainer:
    """The papers' ResNet-18 on made-up images of CIFAR-10's shape, at the papers' recipe."""
    cell = load([
        "model=resnet18_cifar", f"model.width={sizes.width}", f'model.blocks="{sizes.blocks}"', "dataset=synthetic",
        f"dataset.train_images={sizes.images}", "recipe=resnet_cifar", f"recipe.precision={precision}",
        *overrides,
    ])[0]  # fmt: skip
    source = cell.dataset.build()
    run = Trainer(cell, source, _data(source, device), device, engine)
    run.model.train()
    return run


_made: dict[str, DataSet] = {}


def _data(source: Any, device: str) -> DataSet:
    from pathlib import Path

    key = f"{device} {source.train_images}"
    if key not in _made:
        _made[key] = source.load(Path()).to(device)
    return _made[key]


def _batch(run: Trainer) -> tuple[torch.Tensor, torch.Tensor]:
    return next(epoch_batches(run.data, run.cell.recipe, 0, 0))


def limits(device: Device) -> dict[str, Any]:
    run = trainer("cpu", device.sizes, "eager", "float32")
    flops = 3 * count(run.model, (3, 32, 32)).flops  # forwards once, backwards twice as much
    rates = {precision: device.matmul_rate(precision) for precision in device.sizes.precisions}
    return {
        "matmul_flops_per_second": rates,
        "bytes_per_second": device.bandwidth(),
        "flops_per_image": flops,
        "epoch_floor_seconds": {name: CIFAR_IMAGES * flops / rate for name, rate in rates.items()},
    }


def losses(device: Device, engine: str, method: str) -> dict[str, Any]:
    """The engine's first losses against the eager engine's in float32 on the CPU."""
    tolerance = CHECKED[method]
    expected = _expected_losses(device.sizes, method)
    run = trainer(device.name, device.sizes, engine, "float32", f"method={method}")
    ours = _first_losses(run)
    apart = max(abs(a - b) / abs(b) for a, b in zip(ours, expected, strict=True))
    return {
        "method": method,
        "engine": engine,
        "ran": run.engine.ran,
        "deviation": apart,
        "tolerance": tolerance,
        "held": apart <= tolerance,
    }


@cache
def _expected_losses(sizes: Sizes, method: str) -> list[float]:
    return _first_losses(trainer("cpu", sizes, "eager", "float32", f"method={method}"))


def _first_losses(run: Trainer) -> list[float]:
    epochs = (epoch_batches(run.data, run.cell.recipe, 0, epoch) for epoch in range(CHECKED_STEPS))
    batches = (batch for epoch in epochs for batch in epoch)
    return [float(run.step(x, y)) for _, (x, y) in zip(range(CHECKED_STEPS), batches, strict=False)]


def hand_written(run: Trainer) -> Step:
    """The loop that one would write by hand for plain SGD, eagerly, with the model and precision of ``run``."""
    model, (x, y) = run.model, _batch(run)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    device, precision = torch.device(run.device), run.cell.recipe.precision

    def step() -> None:
        optimizer.zero_grad()
        with numerics(precision, device):
            loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()

    return step


@cache
def _reference(name: str, sizes: Sizes, precision: str) -> Step:
    return hand_written(trainer(name, sizes, "eager", precision))


def step(device: Device, precision: str, engine: str, name: str) -> dict[str, Any]:
    """A method's step over the hand-written loop's in the same precision."""
    reference = _reference(device.name, device.sizes, precision)
    run = trainer(device.name, device.sizes, engine, precision, *METHODS[name])
    x, y = _batch(run)
    run.step(x, y)  # prepares the engine, whose memory is not the step's
    if device.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    ratio, seconds = device.ratio(lambda: run.step(x, y), reference)
    return {
        "precision": precision,
        "engine": engine,
        "method": name,
        "ran": run.engine.ran,
        "why": run.engine.why,
        "over_hand_written": ratio,
        "seconds": seconds if device.on_gpu else None,
        "prepared": run.engine.seconds,
        "peak_bytes": torch.cuda.max_memory_allocated() if device.on_gpu else None,
    }


def epoch(device: Device, precision: str, engine: str) -> dict[str, Any]:
    """A whole epoch with order, augmentation and loading: its time over that of its steps alone."""
    run = trainer(device.name, device.sizes, engine, precision)
    x, y = _batch(run)

    def whole() -> None:
        for images, labels in epoch_batches(run.data, run.cell.recipe, 0, 0):
            run.step(images, labels)

    def steps() -> None:
        for _ in range(run.steps):
            run.step(x, y)

    for _ in range(WARM_UP_STEPS):
        run.step(x, y)
    ratio, seconds = device.ratio(whole, steps, pairs=max(1, device.sizes.pairs // 7), warm_ups=0)
    return {
        "precision": precision,
        "engine": engine,
        "ran": run.engine.ran,
        "over_steps": ratio,
        "seconds": seconds * CIFAR_IMAGES / device.sizes.images if device.on_gpu else None,
    }


def corruptions(device: Device) -> dict[str, float]:
    """The whole set of types and severities: images a second on a GPU, their number over a CPU's otherwise."""
    source = load(["dataset=cifar10"])[0].dataset.build()
    images = torch.randint(0, 256, (device.sizes.corrupted, 3, 32, 32), dtype=torch.uint8, device=device.name)
    names = [name for name in source.corruptions if name != "frost"]  # needs photographs

    def whole() -> None:
        for name in names:
            corrupt(images, name, 3, source.corruptions)

    whole()
    return {"types": len(names), "images_per_second": len(images) * len(names) / device.seconds(whole)}
