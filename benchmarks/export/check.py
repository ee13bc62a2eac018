"""Whether a loaded model still measures on the clean test images what its card says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.errors import UserError
from benchmarks.evaluation.evaluate import EvaluationImages, evaluate
from benchmarks.export.trained import Trained
from benchmarks.results.card import MEASURED
from benchmarks.runtime import Runtime
from weightaug.method import Method

SHARE = 1e-3
"""Rounding on another processor or with other threads moves logits, and so may move this share of the images, or
one image, over a decision; and nll by this much of itself."""


@dataclass(frozen=True)
class Comparison:
    """One number of the card and the same measured anew."""

    mode: str
    key: str
    card: float
    now: float
    tolerance: float

    @property
    def equal(self) -> bool:
        return abs(self.now - self.card) <= self.tolerance


def compare(trained: Trained, method: Method, runtime: Runtime, device: str) -> list[Comparison]:
    """Evaluate the loaded model on the clean test images as its cell says, in every inference mode.

    Raises:
        UserError: the data set is missing.
    """
    source = trained.source
    absent = None if runtime.download else source.missing(runtime.data_folder)
    if absent:
        raise UserError(f"{absent}; --check needs it, loading does not")
    data = source.load(runtime.data_folder, runtime.download).to(device)
    metrics = evaluate(trained.cell, method, data, EvaluationImages.make(source, data, corruptions=False))
    return [
        Comparison(mode, key, clean[key], metrics[mode]["clean"][key], _tolerance(key, clean))
        for mode, clean in ((mode, values["clean"]) for mode, values in trained.card["metrics"].items())
        for key in MEASURED
    ]


def _tolerance(key: str, clean: dict[str, Any]) -> float:
    if key == "nll":
        return SHARE * float(clean["nll"])
    share = max(SHARE, 1 / clean["n"]) * (1 + 1e-9)
    return share if key == "ece" else 100 * share
