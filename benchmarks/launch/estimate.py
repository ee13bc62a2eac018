"""How long cells will take, from the cards of finished ones on the same hardware. Nothing is assumed.

What else can be known is :mod:`benchmarks.launch.forecast`'s.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.cell import Cell
from benchmarks.results.card import Card
from benchmarks.results.provenance import machine

MEASURED = "seconds per epoch of cells of the same model, method, data set and batch size"
FLOPS = "FLOPs of the model and FLOP/s of cells of the same method"
CALIBRATED = "the calibration of this machine"
SCALED = "that calibration of other kinds, in proportion to the FLOPs"
PEAK = "the device's peak rate: they take longer"
UNKNOWN = "no measurement"
BACKWARD = 3
"""A training step costs three forward passes, by convention; it cancels out, as do the passes of the method."""


@dataclass(frozen=True)
class Estimate:
    """The time that cells will take: ``seconds`` one after another, of those that can be told."""

    cells: tuple[float, ...]  # seconds of each, 0 where it can't be told
    by_basis: Mapping[str, int]  # how many cells were told from what, or not told

    @property
    def seconds(self) -> float:
        return sum(self.cells)

    def until_done(self, workers: int) -> float:
        """Seconds with so many workers, each of which takes the next cell when it has done one."""
        busy = [0.0] * workers
        for seconds in self.cells:
            heapq.heapreplace(busy, busy[0] + seconds)
        return max(busy)

    @property
    def unknown(self) -> int:
        """How many cells can't be told."""
        return self.by_basis.get(UNKNOWN, 0)


class Throughput:
    """What the cards of one kind of hardware tell of the time that cells take there.

    Args:
        cards: of any hardware.
        device, hardware: those of the cells to come, see :func:`benchmarks.results.provenance.hardware`.
        devices: how many train a cell together.
    """

    def __init__(
        self, cards: Iterable[Card], device: str, hardware: Mapping[str, Any], devices: int = 1
    ) -> None:
        self._epochs: dict[Hashable, list[float]] = {}
        self._evaluations: dict[Hashable, list[float]] = {}
        self._flops: dict[Hashable, int] = {}
        self._images: dict[Hashable, int] = {}
        self._rates: dict[Hashable, list[float]] = {}
        here = machine({"device": device, "hardware": hardware, "devices": devices})
        for card in cards:
            model, method, dataset, batch = _kind(card["cell"])
            cost, curve = card["cost"], card["curve"]
            self._flops[model, dataset] = cost["flops"]
            if curve:
                self._images[dataset] = round(curve[-1]["step"] / curve[-1]["epoch"]) * batch
            if machine(card["provenance"]) != here:
                continue
            self._epochs.setdefault((model, method, dataset, batch), []).append(cost["seconds_per_epoch"])
            if card["status"] == "finished":
                self._evaluations.setdefault((model, dataset), []).append(cost["evaluation_seconds"])
            if curve and cost["training_seconds"] > 0:
                work = BACKWARD * cost["flops"] * curve[-1]["step"] * batch
                self._rates.setdefault(method, []).append(work / cost["training_seconds"])

    def seconds(self, cell: Cell) -> tuple[float, str]:
        """What ``cell`` will take from its beginning to its card, and from what that is told."""
        model, method, dataset, batch = _kind(cell.as_dict())
        evaluation = median(self._evaluations.get((model, dataset), [0.0]))
        measured = self._epochs.get((model, method, dataset, batch))
        if measured:
            return cell.recipe.total_epochs * median(measured) + evaluation, MEASURED
        flops, images = self._flops.get((model, dataset)), self._images.get(dataset)
        rates = self._rates.get(method)
        if flops is None or images is None or rates is None:
            return 0.0, UNKNOWN
        return BACKWARD * flops * images * cell.recipe.total_epochs / median(rates) + evaluation, FLOPS


def total(parts: Iterable[tuple[tuple[float, str], float]]) -> Estimate:
    """The sum over ((seconds, basis), share left) of cells."""
    cells, bases = [], Counter[str]()
    for (of_cell, basis), left in parts:
        cells.append(of_cell * left)
        bases[basis] += 1
    return Estimate(tuple(cells), bases)


def _kind(config: Mapping[str, Any]) -> tuple[str, str, str, int]:
    """Model, method, data set and batch size of a cell's full config."""
    model = config["model"]
    return (
        str(model.get("architecture", model["name"])),
        str(config["method"]["name"]),
        str(config["dataset"]["name"]),
        int(config["recipe"]["batch_size"]),
    )


def describe(left: Estimate, workers: int, device: str, gpus: int | None = None) -> str:
    """The time left in words, with where that is known from. ``gpus``: of all workers; None: one each."""
    told = sum(left.by_basis.values()) - left.unknown
    if not left.by_basis:
        return "nothing is left to train"
    unknown = f"{UNKNOWN} for {left.unknown} cell(s): run one of each kind on this hardware, or `weightaug calibrate`"
    if not told:
        return unknown
    bound = "at least" if PEAK in left.by_basis else "about"
    text = f"{bound} {duration(left.until_done(workers))} with {workers} worker(s)"
    if device.startswith("cuda"):
        text += f", {left.seconds / workers * (gpus or workers) / 3600:.2f} GPU hours"
    bases = ", ".join(f"{number} from {basis}" for basis, number in left.by_basis.items() if basis != UNKNOWN)
    return f"{text} (cells told: {bases})" + (f"; not counted: {unknown}" if left.unknown else "")


def duration(seconds: float) -> str:
    """Seconds in the unit that fits."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
