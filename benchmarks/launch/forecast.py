"""What cells will take on a device: from cards, from a calibration of the machine, or at least by the maker's peak."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.cell import Cell
from benchmarks.data.dataset import Source
from benchmarks.launch.estimate import CALIBRATED, MEASURED, PEAK, SCALED, UNKNOWN, Throughput
from benchmarks.launch.place import Place
from benchmarks.launch.requirements import source_of
from benchmarks.planning.calibration import Figures
from benchmarks.planning.kinds import Kind, work_of
from benchmarks.planning.memory import Memory, held
from benchmarks.planning.need import need_of
from benchmarks.runtime import Runtime


class Forecast:
    """As :class:`Throughput`, and more where the cards tell nothing.

    Args:
        cards: what cards of this hardware tell.
        place: where the cells are to run.
    """

    def __init__(self, runtime: Runtime, cards: Throughput, place: Place) -> None:
        self.runtime, self.cards, self.known, self.peak = runtime, cards, place.known, place.peak
        self.at_once, self.parts = place.at_once, runtime.devices * runtime.accumulate
        self.speed_up = (
            place.together if place.on_gpu else 1
        )  # of steps, at best; processes on a CPU share its cores
        self.gain = place.packing.gain(self.at_once) if place.packing else 1.0
        self.process_bytes = self.known.worker_bytes if self.known and not place.on_gpu else 0.0
        self._derived: dict[str, Figures | None] = {}
        self._kinds: dict[str, tuple[Kind, Source]] = {}

    def seconds(self, cell: Cell) -> tuple[float, str]:
        """What ``cell`` will take of one of the workers, and from what that is told; a bound where that is PEAK."""
        by_cards = self.cards.seconds(cell)
        if by_cards[1] == MEASURED or (self.known is None and self.peak is None):
            return by_cards
        kind, source = self.kind(cell)
        work = work_of(cell, source, self.speed_up)
        figures = self.figures(kind)
        if work and figures and not (figures.derived_from and by_cards[1] != UNKNOWN):
            # With others beside it a cell takes longer, and all together less.
            seconds = figures.cell_seconds(work, self.speed_up) * self.at_once / self.gain
            return seconds, SCALED if figures.derived_from else CALIBRATED
        if by_cards[1] != UNKNOWN:
            return by_cards
        rate = self.peak.peak(cell.recipe.precision) if self.peak else None
        if work is None or rate is None:
            return 0.0, UNKNOWN
        need = need_of(kind)
        flops = work.steps * need.step_flops / self.speed_up + work.evaluated * need.image_flops
        return flops / rate * self.at_once, PEAK

    def figures(self, kind: Kind) -> Figures | None:
        """The calibration's for the kind, derived where it has others alone."""
        if self.known is None or not self.known.kinds:
            return None
        key = kind.key
        if key in self.known.kinds:
            return self.known.kinds[key]
        if key not in self._derived:
            self._derived[key] = self.known.derived(kind, need_of(kind))
        return self._derived[key]

    def memory(self, cell: Cell) -> Memory:
        """What training the cell takes of the device, computed."""
        kind, source = self.kind(cell)
        figures = self.known.kinds.get(kind.key) if self.known else None
        computed = figures.computed if figures else need_of(kind).memory
        return replace(computed, images=held(source))

    def measured_bytes(self, cell: Cell) -> float | None:
        """The peak that the calibration saw, of the cell's whole batch; None where it saw none."""
        kind, _ = self.kind(cell)
        figures = self.known.kinds.get(kind.key) if self.known else None
        whole = figures is not None and figures.batch == cell.recipe.batch_size and self.parts == 1
        return figures.memory_bytes if figures and whole else None

    def kind(self, cell: Cell) -> tuple[Kind, Source]:
        """The cell's kind and its data set, not loaded; made once for cells that differ in the seed alone."""
        settings = (cell.method, cell.model, cell.dataset, cell.recipe, cell.evaluation)
        key = str(settings)
        if key not in self._kinds:
            source = source_of(cell, self.runtime)
            self._kinds[key] = Kind.of(cell, source), source
        return self._kinds[key]
