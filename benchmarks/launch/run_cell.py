"""One cell from its config to its card."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import torch

from benchmarks.cell import Cell
from benchmarks.cost.counting import count
from benchmarks.data.dataset import DataSet, Source
from benchmarks.evaluation.evaluate import EvaluationImages, evaluate
from benchmarks.results.card import SCHEMA, Card
from benchmarks.results.provenance import provenance
from benchmarks.results.store import Heartbeat, Store
from benchmarks.results.wandb_mirror import Mirror
from benchmarks.runtime import Runtime
from benchmarks.training.trainer import Progress, Trainer, build


def preflight(cell: Cell, runtime: Runtime) -> list[str]:
    """What stands in the way of running ``cell`` here: missing data. Bad hyper-parameters raise at once."""
    source: Source = cell.dataset.build()
    build(cell, source, "cpu")
    problem = None if runtime.download else source.missing(runtime.data_folder)
    return [problem] if problem else []


def run_cell(
    cell: Cell, runtime: Runtime, device: str, store: Store, heartbeat: Heartbeat, group: str, command: str
) -> Card:
    """Train and evaluate ``cell``, write its card into ``store`` and return it.

    Args:
        heartbeat: the claim on the cell; is told how far the training is.
        group: what W&B groups the run under: the table's name.
        command: what the person typed, for the card.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    source: Source = cell.dataset.build()
    data, sets = _data(cell, source, runtime, device)
    mirror = Mirror(runtime.wandb, store.folder, group)
    mirror.start(cell.id, cell.label, cell.as_dict())
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    trainer = Trainer(cell, source, data, device)

    def after_epoch(entry: dict[str, Any]) -> None:
        heartbeat.fraction = entry["epoch"] / cell.recipe.total_epochs
        heartbeat.watch_memory()
        mirror.epoch(entry)

    checkpoint = store.work(cell.id) / "checkpoint.pt"
    progress = trainer.run(checkpoint, every=runtime.checkpoint_seconds, after_epoch=after_epoch)
    begun = time.perf_counter()
    metrics = None if progress.diverged_at else evaluate(cell, trainer.method, data, sets)
    evaluation_seconds = time.perf_counter() - begun
    card: Card = {
        "schema": SCHEMA,
        "id": cell.id,
        "status": "diverged" if progress.diverged_at else "finished",
        "cell": cell.as_dict(),
        "metrics": metrics,
        "diverged_at": progress.diverged_at,
        "curve": progress.curve,
        "cost": _cost(trainer, source, progress, evaluation_seconds, heartbeat, device),
        "provenance": provenance(
            device, torch.get_num_threads(), command, started, datetime.now(UTC).isoformat(timespec="seconds")
        ),
    }
    store.write(card)
    mirror.finish(card)
    return card


def _cost(
    trainer: Trainer,
    source: Source,
    progress: Progress,
    evaluation_seconds: float,
    heartbeat: Heartbeat,
    device: str,
) -> dict[str, Any]:
    counted = count(trainer.model, (source.in_channels, source.image_size, source.image_size))
    on_gpu = device.startswith("cuda")
    return {
        "parameters": counted.parameters,
        "macs": counted.macs,
        "flops": counted.flops,
        "uncounted_operators": counted.uncounted_operators,
        "seconds_per_epoch": progress.seconds / progress.epoch,
        "training_seconds": progress.seconds,
        "evaluation_seconds": evaluation_seconds,
        # On a GPU the tensors' peak there; on a CPU the resident memory of the whole process.
        "peak_memory_bytes": torch.cuda.max_memory_allocated(device) if on_gpu else heartbeat.watch_memory(),
        "resumed": progress.resumed,
    }


_loaded: dict[str, tuple[DataSet, EvaluationImages]] = {}


def _data(cell: Cell, source: Source, runtime: Runtime, device: str) -> tuple[DataSet, EvaluationImages]:
    """The data set and its test sets, kept from cell to cell as long as they are the same."""
    key = json.dumps(
        [cell.dataset.name, cell.dataset.arguments, cell.evaluation.corruptions, device], sort_keys=True
    )
    if key not in _loaded:
        _loaded.clear()
        data = source.load(runtime.data_folder, runtime.download).to(device)
        _loaded[key] = data, EvaluationImages.make(source, data, cell.evaluation.corruptions)
    return _loaded[key]
