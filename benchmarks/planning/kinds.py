"""Kinds of cells: those of one kind ask the same of a device in every training step. And how much work a cell is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from benchmarks.cell import Cell
from benchmarks.data.batches import steps_per_epoch
from benchmarks.data.corruptions import SEVERITIES
from benchmarks.data.dataset import Source
from benchmarks.data.files.declared import file_set
from benchmarks.data.splits import VALIDATION_SHARE
from benchmarks.data.synthetic import Synthetic
from benchmarks.registry import locate

OF_RECIPE = ("optimizer", "batch_size", "precision", "randaugment", "randaugment_layers")
"""What of a recipe a step's time depends on; its rates and its epochs are no part of that."""


@dataclass(frozen=True)
class Kind:
    """Model, method, batch and images of cells. Seeds, epochs and real-valued hyper-parameters do not matter."""

    cell: Cell  # one of the kind
    shape: tuple[int, int, int]  # of an image: channels, height, width
    classes: int
    corruptions: dict[str, list[Any]]  # those that a method may train with

    @classmethod
    def of(cls, cell: Cell, source: Source) -> Kind:
        shape = (source.in_channels, source.image_size, source.image_size)
        return cls(cell, shape, source.num_classes, source.corruptions)

    @property
    def key(self) -> str:
        """The same for all cells of the kind."""
        return json.dumps(
            {
                "images": [*self.shape, self.classes],
                "model": self.cell.model.arguments | {"name": self.cell.model.name},
                "method": self.method_key,
                "recipe": {name: getattr(self.cell.recipe, name) for name in OF_RECIPE},
            },
            sort_keys=True,
        )

    @property
    def method_key(self) -> str:
        """The method without its real-valued hyper-parameters, which change no cost."""
        method = self.cell.method
        kept = {name: value for name, value in method.arguments.items() if not isinstance(value, float)}
        return json.dumps({"name": method.name, **kept}, sort_keys=True)

    @property
    def label(self) -> str:
        cell, recipe = self.cell, self.cell.recipe
        precision = "" if recipe.precision == "float32" else f" {recipe.precision}"
        return (
            f"{cell.method.name} {cell.model.title} {self.shape[-1]} px, batch {recipe.batch_size}{precision}"
        )

    @property
    def sub_batches(self) -> int:
        return int(self.cell.method.arguments.get("sub_batches", 1))

    def made_up(self, train: int, test: int) -> Synthetic:
        """Images of the kind's shape, where the real ones need not be there."""
        channels, size, _ = self.shape
        return Synthetic(
            size=size,
            channels=channels,
            classes=self.classes,
            train_images=train,
            test_images=test,
            corruptions=self.corruptions,
        )


@dataclass(frozen=True)
class Workload:
    """How much a whole cell is."""

    steps: int  # of training
    # Images that pass forwards in evaluations, on the device with the most; one backwards counts as two more.
    evaluated: int


def work_of(cell: Cell, source: Source, devices: int = 1) -> Workload | None:
    """None where the size of the data set is not known before it is read. AutoAttack is not counted: it is adaptive.

    Args:
        devices: that train and evaluate the cell together, see :mod:`benchmarks.evaluation.own_batches`.
    """
    train = training_images(source)
    if train is None or source.counts is None:
        return None
    test = source.counts[1] if source.split != "validation" else source.counts[0] - train
    recipe, evaluation = cell.recipe, cell.evaluation
    passes = 1.0 + (len(SEVERITIES) * len(source.corruptions) if evaluation.corruptions else 0)
    if evaluation.fgsm_epsilon is not None:
        passes += 3 + 1  # a gradient, and the attacked images
    if evaluation.pgd_epsilon is not None:
        passes += 3 * evaluation.pgd_steps + 1
    alone = recipe.total_epochs * test if evaluation.official_was else 0  # the first device's

    def shared(images: int) -> int:
        batches = -(-images // evaluation.batch_size)
        return min(images, -(-batches // devices) * evaluation.batch_size)

    shifted = sum(shared(published_images(name)) for name in evaluation.shifted)
    modes = len(getattr(locate(cell.method.target), "modes", ("plain",)))
    steps = steps_per_epoch(train, recipe) * recipe.total_epochs
    return Workload(steps, round(modes * (shared(test) * passes + alone + shifted)))


def training_images(source: Source) -> int | None:
    """How many there are, without those that are held back for validation; None where that is not known."""
    if source.counts is None:
        return None
    train = source.counts[0]
    return train - round(train * VALIDATION_SHARE) if source.split == "validation" else train


def published_images(name: str) -> int:
    """How many images a published set declares to have."""
    parts = [count for download in file_set(name).downloads for count in download.parts.values()]
    return sum(count for count in parts if isinstance(count, int))
