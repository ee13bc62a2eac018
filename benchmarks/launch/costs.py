"""The ``cost`` of a card: what the model and the run of a cell took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.cost.counting import count
from benchmarks.cost.dom_savings import savings
from benchmarks.cost.utilisation import matmul_rate, training_flops
from benchmarks.data.dataset import Source
from benchmarks.results.heartbeat import Reporting
from benchmarks.training.trainer import Trainer
from weightaug import WAS

PARTS = ("training", "compile", "checkpoint", "evaluation")


def peak_memory(device: str, heartbeat: Reporting) -> int:
    """The most bytes that this process has had: on the GPU, or on a CPU the resident memory."""
    on_gpu = device.startswith("cuda")
    return torch.cuda.max_memory_allocated(device) if on_gpu else heartbeat.watch_memory()


def cost(trainer: Trainer, source: Source, others: Mapping[str, float], memory: int) -> dict[str, Any]:
    """The keys are those of :mod:`benchmarks.results.card`.

    Args:
        trainer: after training.
        others: the seconds of the parts that are not training: preparation, evaluation.
        memory: the largest that a process took, before anything is counted, which takes memory too.
    """
    device, progress, cell = trainer.device, trainer.progress, trainer.cell
    shape = (source.in_channels, source.image_size, source.image_size)
    counted = count(trainer.model, shape)
    seconds = {name: progress.seconds.get(name, 0.0) + others.get(name, 0.0) for name in (*PARTS, *others)}
    images = progress.epoch * trainer.images_per_epoch / seconds["training"]
    flops = training_flops(cell, source, trainer.data, device)
    rate = matmul_rate(device, cell.recipe.precision)
    return {
        "parameters": counted.parameters,
        "macs": counted.macs,
        "flops": counted.flops,
        "uncounted_operators": counted.uncounted_operators,
        "seconds_per_epoch": seconds["training"] / progress.epoch,
        **{f"{name}_seconds": value for name, value in seconds.items()},
        "images_per_second": images,
        "training_flops": flops,
        "flops_per_second": flops * images,
        "matmul_flops_per_second": rate,
        "utilisation": flops * images / (rate * trainer.processes.count),
        "starvation": min(1.0, progress.seconds.get("waiting", 0.0) / seconds["training"]),
        "energy_joules": progress.joules.get("training"),
        "peak_memory_bytes": memory,
        "resumed": progress.resumed,
        **(savings(trainer.method, shape) if isinstance(trainer.method, WAS) else {}),
    }
