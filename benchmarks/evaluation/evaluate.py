"""Everything that is measured on a trained model: clean and corrupted, in each of the method's inference modes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cell import Cell
from benchmarks.data.corruptions import SEVERITIES, corrupt, without_missing
from benchmarks.data.dataset import DataSet, Source
from benchmarks.evaluation.batch_norm import batch_statistics, reestimate
from benchmarks.evaluation.metrics import measure
from weightaug.method import Method

REESTIMATION_BATCHES = 16


@dataclass(frozen=True)
class EvaluationImages:
    """The clean test images and every corruption of them, made once and kept on the device."""

    labels: Tensor
    clean: Tensor
    corrupted: dict[tuple[str, int], Tensor]

    @classmethod
    def make(cls, source: Source, data: DataSet, corruptions: bool = True) -> EvaluationImages:
        images = data.test.images
        table = without_missing(source.corruptions) if corruptions else {}
        corrupted = {
            (name, severity): corrupt(images, name, severity, table)
            for name in table
            for severity in SEVERITIES
        }
        return cls(data.test.labels, images, corrupted)


def evaluate(cell: Cell, method: Method, data: DataSet, sets: EvaluationImages) -> dict[str, Any]:
    """The ``metrics`` of a card: for each mode the clean and the corrupted measurements, raw."""
    method.model.eval()
    return {mode: _evaluate_mode(cell, method, mode, data, sets) for mode in method.modes}


def _evaluate_mode(
    cell: Cell, method: Method, mode: str, data: DataSet, sets: EvaluationImages
) -> dict[str, Any]:
    def measured(images: Tensor) -> dict[str, Any]:
        logits = torch.cat(
            [method.predict(x, mode) for x in _batches(data, images, cell.evaluation.batch_size)]
        )
        return measure(logits.float(), sets.labels, bins=cell.evaluation.ece_bins)

    with _batch_norm(cell, method, mode, data):
        clean = measured(sets.clean)
        corrupted: dict[str, dict[str, list[float]]] = {}
        for (name, _), images in sets.corrupted.items():
            for key, value in measured(images).items():
                if key != "n":
                    corrupted.setdefault(name, {}).setdefault(key, []).append(value)
    return {"clean": clean, "corrupted": corrupted}


def _batch_norm(cell: Cell, method: Method, mode: str, data: DataSet) -> AbstractContextManager[Any]:
    model: nn.Module = method.model
    if cell.evaluation.batch_norm == "reestimated":
        batches = _batches(data, data.train.images, cell.recipe.batch_size, most=REESTIMATION_BATCHES)
        return reestimate(model, lambda x: method.predict(x, mode), batches)
    if cell.evaluation.batch_norm == "batch":
        return batch_statistics(model)
    return nullcontext()


def _batches(data: DataSet, images: Tensor, size: int, most: int | None = None) -> Iterator[Tensor]:
    for number, chunk in enumerate(images.split(size)):
        if most is not None and number >= most:
            return
        yield data.normalise(chunk)
