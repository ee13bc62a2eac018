"""One training run: cell in, trained model and what training told out. Knows nothing of tables or reports."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import interruption
from benchmarks.cell import Cell, Recipe
from benchmarks.data.batches import epoch_batches, steps_per_epoch
from benchmarks.data.dataset import DataSet, Source
from benchmarks.errors import one_line
from benchmarks.evaluation.official import official_errors
from benchmarks.memory import is_out_of_memory
from benchmarks.results.files import set_aside
from benchmarks.terminal import warn
from benchmarks.training import checkpoint
from benchmarks.training.clock import Clock
from benchmarks.training.engine import Engine
from benchmarks.training.optimizers import build_optimizer, set_learning_rate
from benchmarks.training.processes import ALONE, Processes
from benchmarks.training.schedules import Schedule, build_schedule
from benchmarks.training.sharing import sharing
from benchmarks.training.step import TrainingStep
from benchmarks.training.watchdog import Watchdog
from weightaug.method import Method
from weightaug.random import derive_seed
from weightaug.wrappers import distributed

EpochHook = Callable[[dict[str, Any]], None]


@dataclass
class Progress:
    """How far a run is; all of it is in the checkpoint."""

    epoch: int = 0
    step: int = 0
    batch: int = 0  # within the epoch
    loss: float = 0.0  # the sum over those batches
    # Of the parts of the run that exclude each other: training, compile, checkpoint, evaluation. Of the training
    # besides: waiting, the seconds for which the device waited for images.
    seconds: dict[str, float] = field(default_factory=dict)
    joules: dict[str, float] = field(default_factory=dict)  # likewise; empty where nothing counts them
    resumed: int = 0
    diverged_at: dict[str, float] | None = None
    curve: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """Trains one cell on one device, or as one of several processes with one each.

    Continues from the cell's checkpoint where there is one.

    Args:
        cell: what to train.
        source: the cell's data set, before loading.
        data: the loaded data set, on ``device``.
        device: torch's name of it.
        engine: how the steps are run, see :mod:`benchmarks.training.engine`.
        processes: those that train the cell together, each of which has a Trainer.
        accumulate: in so many parts a process runs its part of every batch.
    """

    def __init__(
        self,
        cell: Cell,
        source: Source,
        data: DataSet,
        device: str,
        engine: str = "eager",
        processes: Processes = ALONE,
        accumulate: int = 1,
    ) -> None:
        self.processes, self.accumulate = processes, accumulate
        self.cell, self.source, self.data, self.device = cell, source, data, device
        self.asked = engine
        if device.startswith("cuda:"):  # "cuda" is the current one, which torch does not take here
            torch.cuda.set_device(device)  # graphs and generated kernels are those of the current device
        self.may_write: Callable[[], None] = lambda: None  # called before a checkpoint appears; may raise
        self.steps = steps_per_epoch(len(data.train), cell.recipe)
        self.schedule = schedule(cell.recipe, len(data.train))
        self._begin()

    def _begin(self) -> None:
        """Everything as it is before the first step."""
        self.model, self.method = build(self.cell, self.source, self.device, self.data, self.processes)
        self.sharing = sharing(self.method, self.processes, self.accumulate)
        self.optimizer = build_optimizer(self.cell.recipe, self.model, self.method.parameters())
        step = TrainingStep(
            self.cell.recipe, self.model, self.method, self.optimizer, self.device, self.sharing
        )
        self.engine = Engine(self.asked, step, self.steps * self.cell.recipe.total_epochs)
        self._set_progress(Progress())

    def _set_progress(self, progress: Progress) -> None:
        self.progress = progress
        self.clock = Clock(self.device, progress.seconds, progress.joules)

    def run(
        self,
        path: Path | None = None,
        every: float = math.inf,
        after_epoch: EpochHook | None = None,
        watchdog: Watchdog | None = None,
    ) -> Progress:
        """Train to the end. A signal (see :mod:`benchmarks.interruption`) waits for the checkpoint after the step.

        Args:
            path: checkpoint file, read first and written from time to time and at the end; None: no checkpoints.
            every: seconds between checkpoints.
            after_epoch: called with each new entry of the curve.
            watchdog: is told of every step.
        """
        self._resume(path)
        saved = time.monotonic()

        def save_if_due(first: Callable[[], None] = lambda: None) -> None:
            nonlocal saved
            due = path is not None and time.monotonic() - saved >= every
            stop, due_somewhere = self.processes.largest(interruption.requested(), due)
            if path and (stop or due_somewhere):
                first()
                self.save(path)
                saved = time.monotonic()
            if stop:
                raise interruption.Interrupted(int(stop))

        with interruption.postponed():
            trained = self.progress.step
            while self.progress.epoch < self.cell.recipe.total_epochs and not self.progress.diverged_at:
                entry = self._epoch(save_if_due, watchdog)
                if after_epoch and self.processes.first:
                    after_epoch(entry)
                save_if_due()
            if not self.progress.diverged_at and not self.processes.share(self._finite):
                self.progress.diverged_at = {"epoch": self.progress.epoch, "step": self.progress.step}
            if (
                path and self.progress.step > trained
            ):  # whoever is interrupted in the evaluation continues there
                self.save(path)
        return self.progress

    def _finite(self) -> bool:
        """Whether the last step left numbers that can be evaluated; its loss was taken before it."""
        values = [*self.model.state_dict().values(), *self.method.parameters()]
        return all(bool(value.isfinite().all()) for value in values)

    def _epoch(
        self, save_if_due: Callable[[Callable[[], None]], None], watchdog: Watchdog | None
    ) -> dict[str, float]:
        """One epoch, or the rest of it from where the checkpoint stopped."""
        self.model.train()
        done = self.progress
        total = torch.tensor(done.loss, device=self.device)
        waited = done.seconds.get("waiting", 0.0) - self.data.train.waited

        def count() -> None:
            done.loss = float(total)  # waits for the device: at the end and for checkpoints only
            done.seconds["waiting"] = waited + self.data.train.waited

        with self.clock("training"), watchdog or nullcontext():
            for x, y in epoch_batches(
                self.data,
                self.cell.recipe,
                self.cell.seed,
                done.epoch,
                self.source.num_classes,
                done.batch,
                self.sharing,
            ):
                self.engine.step.total = self._batch_size(done.batch)
                total += self.step(x, y)
                done.batch += 1
                if watchdog:
                    watchdog.step()
                save_if_due(count)
            count()
        loss = done.loss / self.steps
        done.epoch, done.batch, done.loss = done.epoch + 1, 0, 0.0
        rate = self.schedule(self.progress.step - 1)
        entry = {"epoch": self.progress.epoch, "step": self.progress.step, "lr": rate, "loss": loss}
        if not math.isfinite(loss):
            self.progress.diverged_at = {"epoch": self.progress.epoch, "step": self.progress.step}
            entry["loss"] = 0.0 if math.isnan(loss) else math.copysign(1e308, loss)  # JSON knows no NaN
        elif self.cell.evaluation.official_was and self.processes.first:
            with self.clock("evaluation"):
                entry |= official_errors(self.cell, self.method, self.data, self.progress.epoch)
        self.progress.curve.append(entry)
        return entry

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One training step on the batch (x, y); returns its loss, detached and still on the device."""
        if self.engine.ran is None:
            with self.clock("compile"):
                self.engine.prepare(x, y)
        # Layers that draw by themselves, such as a model's own dropout, use torch's global generator.
        torch.manual_seed(derive_seed(self.cell.seed, "layers", self.progress.step))
        set_learning_rate(self.optimizer, self.schedule(self.progress.step))
        loss = self.engine(x, y)
        self.progress.step += 1
        return loss

    def _batch_size(self, batch: int) -> int:
        """Of the whole batch of that number in an epoch."""
        size = self.cell.recipe.batch_size
        return min(size, len(self.data.train) - batch * size)

    @contextmanager
    def by_itself(self) -> Iterator[None]:
        """Within the context each process may run the trained method, as the first one has it, without the others."""
        self.processes.broadcast(
            [*self.model.state_dict().values(), *(own.detach() for own in self.method.parameters())]
        )
        parallel = distributed(self.method.model)
        with parallel.no_sync() if parallel else nullcontext():
            yield

    @property
    def images_per_epoch(self) -> int:
        return min(len(self.data.train), self.steps * self.cell.recipe.batch_size)

    def save(self, path: Path) -> None:
        with self.clock("checkpoint"):
            joules = add(self.processes.gather(self.progress.joules))
            if not self.processes.first:
                return
            state = {
                "model": self.model.state_dict(),
                "optimizer": checkpoint.optimizer_state(self.optimizer),
                "method": self.method.state_dict(),
                "progress": {**vars(self.progress), "joules": joules},
            }
            try:
                checkpoint.save(path, self.cell, state, self.may_write)
            except OSError as error:  # a full disk must not cost the training
                warn(f"the checkpoint {path} can't be written: {one_line(error)}; the one before it is kept")

    def _resume(self, path: Path | None) -> None:
        """Continue from the checkpoint at ``path`` or, if that can't be used, from the previous one."""
        if path is None:
            return
        share = self.processes.share
        places = share(lambda: [place for place in (path, checkpoint.previous(path)) if place.is_file()])
        for place in places:
            try:
                self._load(share(partial(checkpoint.load, place, self.cell)))
                return
            except Exception as error:  # whatever a damaged state raises, half of it may be loaded by now
                if is_out_of_memory(error):
                    raise
                then = "the cell starts anew" if place == places[-1] else "the previous one is tried"
                if self.processes.first:
                    set_aside(place, f"checkpoint refused ({one_line(error)}); {then}")
                self._begin()

    def _load(self, state: dict[str, Any]) -> None:
        progress = Progress(**state["progress"])
        checkpoint.load_model(self.model, state["model"])
        checkpoint.load_optimizer(self.optimizer, state["optimizer"])
        self.method.load_state_dict(state["method"])
        if not self.processes.first:
            progress.joules = {}  # the first has those of all
        self._set_progress(progress)
        self.progress.resumed += 1


def add(counts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The sum for every key."""
    return {key: sum(count.get(key, 0.0) for count in counts) for key in dict.fromkeys(chain(*counts))}


def schedule(recipe: Recipe, examples: int) -> Schedule:
    """The recipe's learning rate as a function of the step, for a training set of so many examples."""
    return build_schedule(
        recipe.schedule,
        lr=recipe.learning_rate,
        lr_ratio=recipe.learning_rate_ratio,
        epochs=recipe.total_epochs,
        steps_per_epoch=steps_per_epoch(examples, recipe),
        warmup_epochs=recipe.warmup_epochs,
        warmup_steps=recipe.warmup_steps,
    )


def build(
    cell: Cell, source: Source, device: str, data: DataSet | None = None, processes: Processes = ALONE
) -> tuple[nn.Module, Method]:
    """The cell's model, initialised from its seed, and its method, which may have the model within a wrapper.

    Without ``data``, a method that works on the images can be built but not run.
    """
    torch.manual_seed(derive_seed(cell.seed, "initialisation"))
    model = cell.model.build(
        num_classes=source.num_classes, in_channels=source.in_channels, image_size=source.image_size
    ).to(device)
    offered = {"source": source, "data": data}
    wrapped = processes.wrap(model)
    method = cell.method.build(offered, model=wrapped, seed=derive_seed(cell.seed, "method"))
    return model, method
