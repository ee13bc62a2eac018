"""What one network costs on one data set's images: what `weightaug cost` measures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.cell import Cell
from benchmarks.config import load
from benchmarks.cost.counting import Cost, TrainingCost, count, training_cost
from benchmarks.data.dataset import DataSet, Images, Source
from benchmarks.errors import UserError, one_line
from benchmarks.registry import EXTERNAL, entries, lookup
from weightaug.random import derive_seed
from weightaug.stacking import StackingError
from weightaug.was import shadow_layers

BATCH = 8
"""Images in the mini-batch of a measured step, where the method has not more sub-batches."""


@dataclass(frozen=True)
class Step:
    """One training step of a method with M sub-batches; None for a method that has no sub-batches."""

    sub_batches: int | None
    cost: TrainingCost


@dataclass(frozen=True)
class Training:
    """What a method's training step costs on a mini-batch of ``batch`` images."""

    method: str
    arguments: dict[str, Any]
    batch: int
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class NetworkCost:
    """The cost of a model on images of a data set."""

    model: str
    description: str
    arguments: dict[str, Any]
    dataset: str
    input_shape: tuple[int, int, int]
    num_classes: int
    forward: Cost
    shadow_layers: tuple[str, ...]
    """The convolutions that WAS transforms with ``layers="auto"``."""
    training: Training | None = None

    @property
    def shadow_macs(self) -> int:
        return sum(self.forward.macs_by_module[layer] for layer in self.shadow_layers)

    def as_dict(self) -> dict[str, Any]:
        """Everything measured, for JSON."""
        forward = self.forward
        content = {
            "model": {"name": self.model, **self.arguments},
            "dataset": self.dataset,
            "input_shape": list(self.input_shape),
            "num_classes": self.num_classes,
            **dataclasses.asdict(forward),
            "tolerance": forward.tolerance,
            "agree": forward.agree(),
            "shadow_layers": list(self.shadow_layers),
            "shadow_macs": self.shadow_macs,
        }
        if self.training is not None:
            steps = [
                {
                    "sub_batches": step.sub_batches,
                    **dataclasses.asdict(step.cost),
                    "forward_passes": step.cost.forward_passes,
                    "backward_passes": step.cost.backward_passes,
                    "passes": step.cost.passes,
                }
                for step in self.training.steps
            ]
            method = {"name": self.training.method, **self.training.arguments}
            content["training"] = {"method": method, "batch": self.training.batch, "steps": steps}
        return content


def measure(overrides: Sequence[str], batch: int | None = None) -> NetworkCost:
    """Count the model of a cell, and a training step of its method if ``overrides`` name one.

    Args:
        overrides: settings as of ``weightaug run``. Without ``dataset=`` the model is built for the images that its
            authors made it for.
        batch: images in the mini-batch of the training step; default: 8, or one a sub-batch where that is more.

    Raises:
        UserError: a wrong name or value, or a batch that is too small.
    """
    cell, runtime = load(overrides)
    entry = lookup("model", cell.model.name)
    if entry.made_for and not any(text.startswith("dataset=") for text in overrides):
        cell, runtime = load([f"dataset={entry.made_for}", *overrides])
    device = runtime.resolve_device()
    source: Source = cell.dataset.build()
    shape = (source.in_channels, source.image_size, source.image_size)
    torch.manual_seed(derive_seed(cell.seed, "initialisation"))
    model: nn.Module = cell.model.build(
        num_classes=source.num_classes, in_channels=source.in_channels, image_size=source.image_size
    ).to(device)
    try:
        shadow = tuple(shadow_layers(model))
    except ValueError:  # no convolution larger than 1x1
        shadow = ()
    trains = any(text.startswith("method=") for text in overrides)
    return NetworkCost(
        model=cell.model.name,
        description=entry.description,
        arguments=cell.model.arguments,
        dataset=cell.dataset.name,
        input_shape=shape,
        num_classes=source.num_classes,
        forward=count(model, shape),
        shadow_layers=shadow,
        training=_training(cell, model, source, device, batch) if trains else None,
    )


def measure_all() -> list[NetworkCost]:
    """Every registered model, by name, on the images that it was made for."""
    return [measure([f"model={name}"]) for name in sorted(entries("model")) if name != EXTERNAL]


def _training(cell: Cell, model: nn.Module, source: Source, device: str, batch: int | None) -> Training:
    """A step with the method's own number of sub-batches and, where that is another, with one."""
    own = cell.method.arguments.get("sub_batches")
    if batch is None:
        batch = max(BATCH, own or 1)
    if batch < 1:
        raise UserError(f"--batch {batch}: at least one image is needed")
    data = _noise_images(source, batch).to(device)
    ((images, y),) = data.train.read(torch.arange(batch), batch)
    x = data.normalise(images)
    steps = []
    for sub_batches in sorted({1, own}) if own else [None]:
        arguments = dict(cell.method.arguments)
        if sub_batches is not None:
            arguments["sub_batches"] = sub_batches
        component = dataclasses.replace(cell.method, arguments=arguments)
        method = component.build({"source": source, "data": data}, model=model, seed=0)
        try:
            steps.append(Step(sub_batches, training_cost(method, F.cross_entropy, x, y)))
        except ValueError as error:  # too few images for M sub-batches, or for BatchNorm
            raise UserError(f"a batch of {batch} is too small ({one_line(error)}); raise --batch") from error
        except StackingError as error:
            raise UserError(f"{cell.method.name} on {cell.model.name}: {one_line(error)}") from error
    return Training(cell.method.name, cell.method.arguments, batch, tuple(steps))


def _noise_images(source: Source, examples: int) -> DataSet:
    """Images of noise in the data set's shape: what a step costs does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    shape = (examples, source.in_channels, source.image_size, source.image_size)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    images = Images(pixels, torch.arange(examples) % source.num_classes)
    return DataSet(images, images, (0.5,) * source.in_channels, (0.25,) * source.in_channels)
