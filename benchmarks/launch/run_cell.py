"""One cell from its config to its card."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import torch

from benchmarks.cell import Cell
from benchmarks.data.dataset import DataSet, Source
from benchmarks.data.shifted import ShiftedImages, check_shifted, open_shifted
from benchmarks.errors import UserError
from benchmarks.evaluation.attacks import check_installed
from benchmarks.evaluation.evaluate import EvaluationImages, evaluate
from benchmarks.evaluation.in_parts import InParts
from benchmarks.evaluation.own_batches import OwnBatches
from benchmarks.launch.costs import cost, peak_memory
from benchmarks.launch.requirements import missing_data, source_of
from benchmarks.launch.training import train
from benchmarks.results.card import SCHEMA, Card
from benchmarks.results.heartbeat import Reporting
from benchmarks.results.provenance import provenance
from benchmarks.results.store import Store
from benchmarks.results.wandb_mirror import Mirror
from benchmarks.results.weights import save
from benchmarks.runtime import Runtime, torchrun_processes
from benchmarks.terminal import warn_once
from benchmarks.training.clock import Clock
from benchmarks.training.optimizers import build_optimizer
from benchmarks.training.processes import ALONE, Processes
from benchmarks.training.sharing import Shareable
from benchmarks.training.trainer import Trainer, add, build, schedule

T = TypeVar("T")


def preflight(cell: Cell, runtime: Runtime) -> list[str]:
    """What stands in the way of running ``cell`` here: missing data. Bad settings raise at once.

    Builds all that the training needs, so that nothing is found wrong only after other cells have run; and
    downloads missing data if that is allowed, so that worker processes find it there.
    """
    check_installed(cell.evaluation)
    source = source_of(cell, runtime)
    check_shifted(cell.evaluation.shifted, source)
    problems = [] if runtime.download else missing_data(cell, source, runtime)
    model, method = build(cell, source, "cpu")
    build_optimizer(cell.recipe, model, method.parameters())
    copies = cell.method.arguments.get("sub_batches", 1)
    if copies > cell.recipe.batch_size:
        raise UserError(
            f"recipe.batch_size={cell.recipe.batch_size} is less than method.sub_batches={copies}; raise it"
        )
    devices = max(runtime.devices, torchrun_processes())
    # As far as that can be told without the images, before anybody fetches them.
    Shareable.of(cell, method, cell.recipe.batch_size).check(devices, runtime.accumulate)
    if problems:
        return problems
    if cell.evaluation.corruptions:
        source.tell_unused(runtime.data_folder)
    examples = len(_load(cell, source, runtime).train)
    schedule(cell.recipe, examples)
    if examples < cell.recipe.batch_size:
        warn_once(
            f"recipe.batch_size={cell.recipe.batch_size} is more than the {examples} training images of "
            f"{cell.dataset.name}: every epoch is one step on all of them"
        )
    if copies > examples:
        raise UserError(
            f"{cell.dataset.name} has {examples} training images, fewer than method.sub_batches={copies}"
        )
    Shareable.of(cell, method, examples).check(devices, runtime.accumulate)
    _shifted(cell, source, runtime)
    return []


def run_cell(
    cell: Cell,
    runtime: Runtime,
    device: str,
    store: Store,
    heartbeat: Reporting,
    group: str,
    command: str,
    processes: Processes = ALONE,
) -> Card | None:
    """Train and evaluate ``cell``, write its card into ``store`` and return it.

    Of several processes the first writes and returns the card; the others wait for that and return None.

    Args:
        heartbeat: the claim on the cell; is told how far the training is.
        group: what W&B groups the run under: the table's name.
        command: what the person typed, for the card.
        processes: those that call this together, each with a ``device`` of its own.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    source = source_of(cell, runtime)
    seconds: dict[str, float] = {}  # of the parts that are not training
    clock = Clock(device, seconds, {})
    with clock("preparation"):
        data = _training_data(cell, source, runtime, device)
        sets = _evaluation_images(cell, source, runtime, data, device, processes)
    mirror = Mirror(runtime.wandb, store.folder, group)
    if processes.first:
        mirror.start(cell.id, cell.label, cell.as_dict())
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    trainer = Trainer(cell, source, data, device, runtime.engine, processes, runtime.accumulate)
    trainer.may_write = heartbeat.check

    def after_epoch(entry: dict[str, Any]) -> None:
        heartbeat.fraction = entry["epoch"] / cell.recipe.total_epochs
        heartbeat.watch_memory()
        mirror.epoch(entry)

    progress = train(trainer, store.work(cell.id), runtime.checkpoint_seconds, after_epoch)
    progress.joules = add(processes.gather(progress.joules))
    method_state = trainer.method.state_dict()  # as trained: an evaluation may draw, too
    parts = InParts(trainer.method, cell.evaluation.batch_size, cell.evaluation.batch_norm != "batch")
    with clock("evaluation"), trainer.by_itself():
        metrics = None if progress.diverged_at else evaluate(cell, parts, data, sets, processes)
    memory = max(processes.gather(peak_memory(device, heartbeat)))
    batch_size = min(processes.gather(parts.size))
    if not processes.first:
        processes.share(lambda: None)
        return None
    if metrics is not None and not _finite(metrics):  # logits that overflow are divergence seen late
        metrics, progress.diverged_at = None, {"epoch": progress.epoch, "step": progress.step}
    weights = None
    if runtime.weights == "keep" and not progress.diverged_at:  # there before the card, which promises them
        inputs = {
            "classes": source.num_classes,
            "channels": source.in_channels,
            "size": source.image_size,
            "mean": data.mean,
            "std": data.std,
        }
        path, work, check = store.weights(cell.id), store.work(cell.id), heartbeat.check
        weights = store.disk.patiently(
            path, lambda: save(path, work, cell, inputs, trainer.model, method_state, check)
        )
    card: Card = {
        "schema": SCHEMA,
        "id": cell.id,
        "status": "diverged" if progress.diverged_at else "finished",
        "cell": cell.as_dict(),
        "metrics": metrics,
        "diverged_at": progress.diverged_at,
        "corrupted_images": sets.origins,
        "curve": progress.curve,
        "cost": {
            **cost(trainer, source, seconds, max(memory, peak_memory(device, heartbeat))),
            "evaluation_batch_size": batch_size,
        },
        "weights": weights,
        "provenance": {
            **provenance(
                device,
                torch.get_num_threads(),
                command,
                started,
                datetime.now(UTC).isoformat(timespec="seconds"),
            ),
            "engine": trainer.engine.record(),
            "devices": processes.count,
            "accumulate": runtime.accumulate,
        },
    }
    store.write(card, heartbeat.check)
    mirror.finish(card)
    processes.share(lambda: None)
    return card


def _finite(metrics: Any) -> bool:
    """Whether every number in nested lists and dictionaries is finite."""
    if isinstance(metrics, dict):
        return all(map(_finite, metrics.values()))
    return all(map(_finite, metrics)) if isinstance(metrics, list) else math.isfinite(metrics)


_loaded: dict[str, Any] = {}


def _load(cell: Cell, source: Source, runtime: Runtime) -> DataSet:
    """The cell's data set, kept from cell to cell as long as it is the same."""
    return _kept("data", cell, lambda: source.load(runtime.data_folder, runtime.download))


def _shifted(cell: Cell, source: Source, runtime: Runtime) -> dict[str, ShiftedImages]:
    """The cell's sets of other images, likewise."""
    names, root = cell.evaluation.shifted, runtime.data_folder
    return _kept("shifted", cell, lambda: open_shifted(names, source, root, runtime.download))


def _training_data(cell: Cell, source: Source, runtime: Runtime, device: str) -> DataSet:
    """The data set on ``device``."""
    data = _load(cell, source, runtime)
    return _kept(device, cell, lambda: data.to(device))


def _evaluation_images(
    cell: Cell,
    source: Source,
    runtime: Runtime,
    on_device: DataSet,
    device: str,
    processes: Processes = ALONE,
) -> EvaluationImages:
    """The test images of the data set on ``device``, clean and corrupted, and other images.

    One of several processes keeps its share of the corrupted ones; it runs no further cell.
    """
    shifted = _shifted(cell, source, runtime)
    own = OwnBatches(processes, cell.evaluation.batch_size)
    return _kept(
        "corrupted",
        cell,
        lambda: EvaluationImages.make(
            source,
            on_device,
            cell.evaluation.corruptions,
            source.published(runtime.data_folder, on_device.test.labels),
            {name: found.to(device) for name, found in shifted.items()},
            own,
        ),
    )


def _kept(what: str, cell: Cell, make: Callable[[], T]) -> T:
    dataset, evaluation = cell.dataset, cell.evaluation
    settings = [dataset.name, dataset.arguments, dataset.content, evaluation.corruptions, evaluation.shifted]
    key = json.dumps(settings, sort_keys=True)
    if _loaded.get("key") != key:
        _loaded.clear()
        _loaded["key"] = key
    if what not in _loaded:
        _loaded[what] = make()
    return cast(T, _loaded[what])
