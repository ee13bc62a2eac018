"""A cell: one training run and what is measured on it, with an id made of its content."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from benchmarks.errors import UserError, one_line, unknown_name

PROTOCOL_VERSION = 2
"""Part of every id. Raise it when the meaning of a config changes, a default's value included."""

OPTIMIZERS = ("sgd", "adamw")
PRECISIONS = ("float32", "tf32", "bf16")
BATCH_NORM = ("running", "reestimated", "batch")
CROP_BOXES = ("torchvision", "official")
PROTOCOLS = ("official",)
"""What good practice would do (`corrected`) is so far a matter of single settings, such as evaluation.batch_norm."""
SCALES = ("full", "reduced", "smoke")
RANDAUGMENTS = {"none": 30, "torchvision": 30, "official": 10}
"""The largest magnitude of each."""


@dataclass(frozen=True)
class Component:
    """A method, model or data set: its registered name and its hyper-parameters.

    ``changed`` holds those that differ from the defaults; only they enter the cell's id, so that a new
    hyper-parameter with a default leaves the old ids as they are.

    ``content`` stands in ids and cards in the place of arguments that name files of this machine: what the files hold.
    """

    name: str
    target: str
    arguments: dict[str, Any]
    changed: dict[str, Any]
    content: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The name that a person chooses it by: for a network of a library ``torchvision/<name>``, say."""
        return str(self.arguments.get("architecture", self.name))

    def build(self, offered: Mapping[str, Any] | None = None, **context: Any) -> Any:
        """Call the registered class or function. A bad hyper-parameter is the user's error, in one line.

        Args:
            offered: context for those targets alone that have an argument of the name; ``expected`` is always
                offered: the ``content`` that the cell's id is made of.
            context: for every target.
        """
        from benchmarks.registry import locate

        target = locate(self.target)
        offered = {"expected": self.content, **(offered or {})}
        asked = inspect.signature(target).parameters.keys() & offered.keys()
        context.update({name: offered[name] for name in asked})
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
    min_crop_area: float | None = None  # random resized crop of at least this share of the area; null: none
    crop_boxes: str = "torchvision"  # whose way of drawing them, see benchmarks/data/resampling.py
    min_crop_covered: float = 0.0  # official: boxes with a smaller share of the area are drawn again
    randaugment: str = "none"  # whose operations and magnitudes, see benchmarks/data/randaugment.py
    randaugment_layers: int = 2
    randaugment_magnitude: int = 10  # torchvision: 0 to 30; official: 0 to 10
    mixup_lambda: float | None = None  # share of the first image in MixUp (DAMP authors: 0.8); null: none
    mixup_alpha: float | None = None  # MixUp with a share from Beta(alpha, alpha) a batch; null: none
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
        self._check_augmentation()

    def _check_augmentation(self) -> None:
        area, share, alpha = self.min_crop_area, self.mixup_lambda, self.mixup_alpha
        if area is not None and not 0 < area <= 1:
            raise UserError(f"recipe.min_crop_area={area}: a share of the area above 0 and up to 1, or null")
        if area is not None and self.crop_padding:
            raise UserError("recipe.min_crop_area and recipe.crop_padding are both set; one crop is enough")
        _choice("recipe.crop_boxes", self.crop_boxes, CROP_BOXES)
        if self.min_crop_covered and (area is None or self.crop_boxes != "official"):
            raise UserError("recipe.min_crop_covered needs recipe.crop_boxes=official and a min_crop_area")
        if not 0 <= self.min_crop_covered < 1:
            raise UserError(f"recipe.min_crop_covered={self.min_crop_covered}: a share from 0 to below 1")
        _choice("recipe.randaugment", self.randaugment, tuple(RANDAUGMENTS))
        most = RANDAUGMENTS[self.randaugment]
        if self.randaugment_layers < 1 or not 0 <= self.randaugment_magnitude <= most:
            raise UserError(
                f"recipe.randaugment={self.randaugment} takes 1 or more randaugment_layers and a "
                f"randaugment_magnitude from 0 to {most}"
            )
        if share is not None and alpha is not None:
            raise UserError("recipe.mixup_lambda and recipe.mixup_alpha are both set; leave one of them null")
        if share is not None and not 0 <= share <= 1:
            raise UserError(f"recipe.mixup_lambda={share}: a share from 0 to 1, or null for no MixUp")
        if alpha is not None and alpha <= 0:
            raise UserError(f"recipe.mixup_alpha={alpha}: must be above 0, or null for no MixUp")


@dataclass(frozen=True)
class Evaluation:
    """What is measured on the trained model.

    ``batch_norm``: ``running`` = the running statistics that training left; ``reestimated`` = averaged anew over the
    training images, for each inference mode by itself; ``batch`` = the test batch's own.

    ``official_was``: besides, test as the WAS authors do, after every epoch and in training mode; see
    :mod:`benchmarks.evaluation.official`. The rest of the measurements stays what it is, so that one run reports both
    the official figures and the corrected ones (``batch_norm=reestimated``).

    ``shifted``: published sets of other images of ImageNet's classes, by their names in the config group ``files``,
    such as ``imagenet_a``; in any order. See :mod:`benchmarks.data.shifted`.

    ``<attack>_epsilon``: how far an attack may move a pixel on the scale 0 to 1; null: it is not run. See
    :mod:`benchmarks.evaluation.attacks`.
    """

    batch_norm: str = "running"
    batch_size: int = 512
    ece_bins: int = 15
    corruptions: bool = True
    shifted: list[str] = field(default_factory=list)
    official_was: bool = False
    fgsm_epsilon: float | None = None
    pgd_epsilon: float | None = None
    pgd_steps: int = 20
    pgd_step_size: float | None = None  # null: 2.5 epsilon / steps
    autoattack_epsilon: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shifted", sorted(set(self.shifted)))  # the order is no part of the id

    def check(self) -> None:
        _choice("evaluation.batch_norm", self.batch_norm, BATCH_NORM)
        if self.shifted:
            from benchmarks.data.files.declared import shifted_names

            known = tuple(shifted_names())
            for name in self.shifted:
                _choice("evaluation.shifted", name, known)
        if self.batch_size < 1 or self.ece_bins < 1 or self.pgd_steps < 1:
            raise UserError("evaluation.batch_size, ece_bins and pgd_steps must be at least 1")
        for name in ("fgsm_epsilon", "pgd_epsilon", "autoattack_epsilon", "pgd_step_size"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"evaluation.{name}={value}: must be from 0 to 1, the scale of the pixels")


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

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits that depend on every setting which differs from its default."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def identity(self) -> dict[str, Any]:
        """The config without default values, paths or device, plus the protocol version."""
        content: dict[str, Any] = {"protocol_version": PROTOCOL_VERSION}
        for name in ("method", "model", "dataset"):
            part: Component = getattr(self, name)
            content[name] = {"name": part.name, **part.changed, **part.content}
        for name in ("recipe", "evaluation"):
            settings = getattr(self, name)
            defaults = _default_values(name)
            content[name] = {key: value for key, value in _values(settings).items() if value != defaults[key]}
        return {**content, "protocol": self.protocol, "scale": self.scale, "seed": self.seed}

    def as_dict(self) -> dict[str, Any]:
        """The full config, as the card keeps it."""
        content: dict[str, Any] = {
            name: {"name": part.name, **part.arguments, **part.content}
            for name, part in (("method", self.method), ("model", self.model), ("dataset", self.dataset))
        }
        content["recipe"] = _values(self.recipe)
        content["evaluation"] = _values(self.evaluation)
        return {**content, "protocol": self.protocol, "scale": self.scale, "seed": self.seed}

    @property
    def of_every_seed(self) -> str:
        """The full config as text, the same for cells that differ in the seed alone."""
        return json.dumps({**self.as_dict(), "seed": None}, sort_keys=True)

    def contradiction(self, config: Mapping[str, Any]) -> str | None:
        """The first setting that ``config``, the full config on a card, states otherwise than this cell.

        A hyper-parameter that came with a later version is not on older cards: its absence is no contradiction
        as long as the cell has it at its default, where it is no part of the id either.
        """
        stated, needed = flat(config), None
        for key, value in flat(self.as_dict()).items():
            if key in stated:
                if stated[key] != value and stated[key] != json.loads(
                    json.dumps(value)
                ):  # a tuple is a list there
                    return key
            elif key in (needed := needed or flat(self.identity())):
                return key
        return None

    @property
    def label(self) -> str:
        return f"{label_of(self.as_dict())} seed {self.seed}"


def _values(settings: Recipe | Evaluation) -> dict[str, Any]:
    """The settings by name; as dataclasses.asdict, which is slow for thousands of cells."""
    return {key: [*value] if isinstance(value, list) else value for key, value in vars(settings).items()}


@cache
def _default_values(group: str) -> dict[str, Any]:
    return _values(Recipe() if group == "recipe" else Evaluation())


def label_of(config: Mapping[str, Any]) -> str:
    """What cells of the full ``config`` are, in a few words, whatever their seed."""
    model, recipe = config["model"], config["recipe"]
    epochs = recipe["epochs"] * recipe["epochs_factor"]
    name = model.get("architecture", model["name"])
    return f"{config['method']['name']} {name} {config['dataset']['name']} {epochs} epochs"


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of a config by its key as in an override, e.g. ``method.sigma``."""
    flat: dict[str, Any] = {}
    for group, value in config.items():
        flat |= (
            {f"{group}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {group: value}
        )
    return flat
