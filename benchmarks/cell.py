"""A cell: one training run and what is measured on it, with an id made of its content."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.errors import UserError, one_line, unknown_name

PROTOCOL_VERSION = 2
"""Part of every id. Raise it when the meaning of a config changes, a default's value included."""

OPTIMIZERS = ("sgd", "adamw")
PRECISIONS = ("float32", "bf16")
BATCH_NORM = ("running", "reestimated", "batch")
PROTOCOLS = ("official",)
"""What good practice would do (`corrected`) is so far a matter of single settings, such as evaluation.batch_norm."""
SCALES = ("full", "reduced", "smoke")


@dataclass(frozen=True)
class Component:
    """A method, model or data set: its registered name and its hyper-parameters.

    ``changed`` holds those that differ from the defaults; only they enter the cell's id, so that a new
    hyper-parameter with a default leaves the old ids as they are.
    """

    name: str
    target: str
    arguments: dict[str, Any]
    changed: dict[str, Any]

    def build(self, offered: Mapping[str, Any] | None = None, **context: Any) -> Any:
        """Call the registered class or function. A bad hyper-parameter is the user's error, in one line.

        Args:
            offered: context for those targets alone that have an argument of the name.
            context: for every target.
        """
        from benchmarks.registry import locate

        target = locate(self.target)
        asked = inspect.signature(target).parameters.keys() & (offered or {}).keys()
        context.update({name: (offered or {})[name] for name in asked})
        try:
            return target(**context, **self.arguments)
        except UserError:
            raise
        except Exception as error:  # a library says in its own way that it can't be built like that
            raise UserError(f"{self.name}: {one_line(error)}") from error


@dataclass(frozen=True)
class Recipe:
    """Optimizer, schedule, epochs, batch size and augmentation of the inputs."""

    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 5e-4
    decay: str = "all"  # which parameters weight decay applies to: all or kernels
    clip_norm: float | None = None
    schedule: str = "step_linear"
    learning_rate_ratio: float = 0.01  # the schedule's last learning rate relative to the first
    warmup_epochs: int = 0
    warmup_steps: int = 0
    epochs: int = 10
    epochs_factor: int = 1  # the tables' 1x and 2x
    batch_size: int = 128
    drop_last: bool = True
    crop_padding: int = 0
    flip: bool = False
    precision: str = "float32"

    @property
    def total_epochs(self) -> int:
        return self.epochs * self.epochs_factor

    def check(self) -> None:
        _choice("recipe.optimizer", self.optimizer, OPTIMIZERS)
        _choice("recipe.precision", self.precision, PRECISIONS)
        _choice("recipe.decay", self.decay, ("all", "kernels"))
        for name in ("epochs", "epochs_factor", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"recipe.{name}={getattr(self, name)}: must be at least 1")
        for name in (
            "learning_rate",
            "learning_rate_ratio",
            "weight_decay",
            "crop_padding",
            "warmup_epochs",
            "warmup_steps",
        ):
            if getattr(self, name) < 0:
                raise UserError(f"recipe.{name}={getattr(self, name)}: must not be negative")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in (self.momentum, *self.betas)):
            raise UserError("recipe.momentum and the two recipe.betas must be at least 0 and below 1")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise UserError(f"recipe.clip_norm={self.clip_norm}: must be above 0, or null for no clipping")


@dataclass(frozen=True)
class Evaluation:
    """What is measured on the trained model.

    ``batch_norm``: ``running`` = the running statistics that training left; ``reestimated`` = averaged anew over the
    training images, for each inference mode by itself; ``batch`` = the test batch's own.

    ``official_was``: besides, test as the WAS authors do, after every epoch and in training mode; see
    :mod:`benchmarks.evaluation.official`. The rest of the measurements stays what it is, so that one run reports both
    the official figures and the corrected ones (``batch_norm=reestimated``).
    """

    batch_norm: str = "running"
    batch_size: int = 512
    ece_bins: int = 15
    corruptions: bool = True
    official_was: bool = False

    def check(self) -> None:
        _choice("evaluation.batch_norm", self.batch_norm, BATCH_NORM)
        if self.batch_size < 1 or self.ece_bins < 1:
            raise UserError("evaluation.batch_size and evaluation.ece_bins must be at least 1")


def _choice(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise unknown_name(f"value of {key}", value, known)


@dataclass(frozen=True)
class Cell:
    """One training run. Everything that can change its numbers is in here, and nothing else."""

    method: Component
    model: Component
    dataset: Component
    recipe: Recipe
    evaluation: Evaluation
    protocol: str
    scale: str
    seed: int

    def __post_init__(self) -> None:
        _choice("protocol", self.protocol, PROTOCOLS)
        _choice("scale", self.scale, SCALES)
        if self.seed < 0:
            raise UserError(f"seed={self.seed}: the seed is a whole number from 0")

    @property
    def id(self) -> str:
        """16 hexadecimal digits that depend on every setting which differs from its default."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def identity(self) -> dict[str, Any]:
        """The config without default values, paths or device, plus the protocol version."""
        content: dict[str, Any] = {"protocol_version": PROTOCOL_VERSION}
        for name in ("method", "model", "dataset"):
            part: Component = getattr(self, name)
            content[name] = {"name": part.name, **part.changed}
        for name in ("recipe", "evaluation"):
            settings = getattr(self, name)
            content[name] = {
                key: value
                for key, value in dataclasses.asdict(settings).items()
                if value != getattr(type(settings)(), key)
            }
        return {**content, "protocol": self.protocol, "scale": self.scale, "seed": self.seed}

    def as_dict(self) -> dict[str, Any]:
        """The full config, as the card keeps it."""
        content: dict[str, Any] = {
            name: {"name": getattr(self, name).name, **getattr(self, name).arguments}
            for name in ("method", "model", "dataset")
        }
        content["recipe"] = dataclasses.asdict(self.recipe)
        content["evaluation"] = dataclasses.asdict(self.evaluation)
        return {**content, "protocol": self.protocol, "scale": self.scale, "seed": self.seed}

    @property
    def label(self) -> str:
        epochs = f"{self.recipe.total_epochs} epochs"
        return f"{self.method.name} {self.model.name} {self.dataset.name} {epochs} seed {self.seed}"
