"""Whether a loaded model still measures on the clean test images what its card says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from benchmarks.data.dataset import Source
from benchmarks.errors import UserError
from benchmarks.evaluation.evaluate import EvaluationImages, evaluate
from benchmarks.export.trained import Trained
from benchmarks.registry import locate
from benchmarks.results.card import MEASURED
from benchmarks.runtime import Runtime
from weightaug.method import Method

SHARE = 1e-3
"""Rounding on another processor or with other threads moves logits, and so may move this share of the images, or
one image, over a decision; and nll by this much of itself."""


@dataclass(frozen=True)
class Remeasured:
    """One number of the card and the same measured anew."""

    mode: str
    key: str
    card: float
    now: float
    tolerance: float

    @property
    def equal(self) -> bool:
        return abs(self.now - self.card) <= self.tolerance


def compare(trained: Trained, method: Method, runtime: Runtime, device: str) -> list[Remeasured]:
    """Evaluate the loaded model on the clean test images as its cell says, in every inference mode.

    Raises:
        UserError: the data set is missing.
    """
    cell, modes = trained.cell, trained.card["metrics"]
    if trained.asked is None and hasattr(locate(cell.dataset.target), "content"):
        raise UserError(
            f"cell {cell.id} has images of your own, and its card says what they are, not where: name the cell by its "
            "settings for --check, with dataset.path"
        )
    source: Source = cell.dataset.build({"cache": runtime.cache_folder})
    absent = None if runtime.download else source.missing(runtime.data_folder)
    if absent:
        raise UserError(f"{absent}; --check needs it, loading does not")
    data = source.load(runtime.data_folder, runtime.download).to(device)
    # A mode with draws goes on drawing through the corrupted images that lie between the clean batches.
    corruptions = cell.evaluation.corruptions and len(modes) > 1
    published = source.published(runtime.data_folder, data.test.labels) if corruptions else None
    sets = EvaluationImages.make(source, data, corruptions, published)
    evaluation = replace(cell.evaluation, fgsm_epsilon=None, pgd_epsilon=None, autoattack_epsilon=None)
    metrics = evaluate(replace(cell, evaluation=evaluation), method, data, sets)
    return [
        Remeasured(
            mode, key, values["clean"][key], metrics[mode]["clean"][key], _tolerance(key, values["clean"])
        )
        for mode, values in modes.items()
        for key in MEASURED
    ]


def _tolerance(key: str, clean: dict[str, Any]) -> float:
    if key == "nll":
        return SHARE * float(clean["nll"])
    share = max(SHARE, 1 / clean["n"]) * (1 + 1e-9)
    return share if key == "ece" else 100 * share
