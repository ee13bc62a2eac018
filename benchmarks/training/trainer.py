"""One training run: cell in, trained model and what training told out. Knows nothing of tables or reports."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cell import Cell, Recipe
from benchmarks.data.batches import epoch_batches, steps_per_epoch
from benchmarks.data.dataset import DataSet, Source
from benchmarks.errors import one_line
from benchmarks.evaluation.official import official_errors
from benchmarks.results.files import set_aside
from benchmarks.training import checkpoint
from benchmarks.training.engine import Engine
from benchmarks.training.optimizers import build_optimizer, set_learning_rate
from benchmarks.training.schedules import Schedule, build_schedule
from benchmarks.training.step import TrainingStep
from weightaug.method import Method
from weightaug.random import derive_seed

EpochHook = Callable[[dict[str, Any]], None]


@dataclass
class Progress:
    """How far a run is; all of it is in the checkpoint."""

    epoch: int = 0
    step: int = 0
    batch: int = 0  # within the epoch
    loss: float = 0.0  # the sum over those batches
    seconds: float = 0.0  # training only
    resumed: int = 0
    diverged_at: dict[str, float] | None = None
    curve: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """Trains one cell on one device, continuing from its checkpoint where there is one.

    Args:
        cell: what to train.
        source: the cell's data set, before loading.
        data: the loaded data set, on ``device``.
        device: torch's name of it.
        engine: how the steps are run, see :mod:`benchmarks.training.engine`.
    """

    def __init__(self, cell: Cell, source: Source, data: DataSet, device: str, engine: str = "eager") -> None:
        self.cell, self.source, self.data, self.device = cell, source, data, device
        self.asked = engine
        self.steps = steps_per_epoch(len(data.train), cell.recipe)
        self.schedule = schedule(cell.recipe, len(data.train))
        self._begin()

    def _begin(self) -> None:
        """Everything as it is before the first step."""
        self.model, self.method = build(self.cell, self.source, self.device, self.data)
        self.optimizer = build_optimizer(self.cell.recipe, self.model, self.method.parameters())
        step = TrainingStep(self.cell.recipe, self.model, self.method, self.optimizer, self.device)
        self.engine = Engine(self.asked, step, self.steps * self.cell.recipe.total_epochs)
        self.progress = Progress()

    def run(
        self, path: Path | None = None, every: float = math.inf, after_epoch: EpochHook | None = None
    ) -> Progress:
        """Train to the end.

        Args:
            path: checkpoint file, read first and written from time to time; None: no checkpoints.
            every: seconds between checkpoints.
            after_epoch: called with each new entry of the curve.
        """
        self._resume(path)
        saved = time.monotonic()

        def save_if_due(first: Callable[[], None] = lambda: None) -> None:
            nonlocal saved
            if path and time.monotonic() - saved >= every:
                first()
                self.save(path)
                saved = time.monotonic()

        while self.progress.epoch < self.cell.recipe.total_epochs and not self.progress.diverged_at:
            entry = self._epoch(save_if_due)
            if after_epoch:
                after_epoch(entry)
            save_if_due()
        if not self.progress.diverged_at and not self._finite():
            self.progress.diverged_at = {"epoch": self.progress.epoch, "step": self.progress.step}
        return self.progress

    def _finite(self) -> bool:
        """Whether the last step left numbers that can be evaluated; its loss was taken before it."""
        return all(bool(value.isfinite().all()) for value in self.model.state_dict().values())

    def _epoch(self, save_if_due: Callable[[Callable[[], None]], None]) -> dict[str, float]:
        """One epoch, or the rest of it from where the checkpoint stopped."""
        self.model.train()
        done = self.progress
        started, before = self._clock(), done.seconds
        total = torch.tensor(done.loss, device=self.device)

        def count() -> None:
            done.loss = float(total)  # waits for the device: at the end and for checkpoints only
            done.seconds = before + self._clock() - started

        for x, y in epoch_batches(
            self.data, self.cell.recipe, self.cell.seed, done.epoch, self.source.num_classes, done.batch
        ):
            total += self.step(x, y)
            done.batch += 1
            save_if_due(count)
        count()
        loss = done.loss / self.steps
        done.epoch, done.batch, done.loss = done.epoch + 1, 0, 0.0
        rate = self.schedule(self.progress.step - 1)
        entry = {"epoch": self.progress.epoch, "step": self.progress.step, "lr": rate, "loss": loss}
        if not math.isfinite(loss):
            self.progress.diverged_at = {"epoch": self.progress.epoch, "step": self.progress.step}
            entry["loss"] = 0.0 if math.isnan(loss) else math.copysign(1e308, loss)  # JSON knows no NaN
        elif self.cell.evaluation.official_was:
            entry |= official_errors(self.cell, self.method, self.data, self.progress.epoch)
        self.progress.curve.append(entry)
        return entry

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One training step on the batch (x, y); returns its loss, detached and still on the device."""
        if self.engine.ran is None:
            self.engine.prepare(x, y)
        # Layers that draw by themselves, such as a model's own dropout, use torch's global generator.
        torch.manual_seed(derive_seed(self.cell.seed, "layers", self.progress.step))
        set_learning_rate(self.optimizer, self.schedule(self.progress.step))
        loss = self.engine(x, y)
        self.progress.step += 1
        return loss

    def _clock(self) -> float:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.state_dict(),
            "progress": vars(self.progress),
        }
        checkpoint.save(path, self.cell.id, state)

    def _resume(self, path: Path | None) -> None:
        state = checkpoint.load(path, self.cell.id, self.device) if path else None
        if path is None or state is None:
            return
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.method.load_state_dict(state["method"])
            self.progress = Progress(**state["progress"])
        except Exception as error:  # whatever a damaged state raises, half of it may be loaded by now
            set_aside(path, f"checkpoint does not fit its cell ({one_line(error)}); the cell starts anew")
            self._begin()
            return
        self.progress.resumed += 1


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


def build(cell: Cell, source: Source, device: str, data: DataSet | None = None) -> tuple[nn.Module, Method]:
    """The cell's model, initialised from its seed, and its method.

    Without ``data``, a method that works on the images can be built but not run.
    """
    torch.manual_seed(derive_seed(cell.seed, "initialisation"))
    model = cell.model.build(
        num_classes=source.num_classes, in_channels=source.in_channels, image_size=source.image_size
    ).to(device)
    offered = {"source": source, "data": data}
    method = cell.method.build(offered, model=model, seed=derive_seed(cell.seed, "method"))
    return model, method
