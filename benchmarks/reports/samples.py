"""Samples: what the cards say of one row of a table on one panel, by seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, stdev

from benchmarks.reports.measures import corruption_types, measure, test_images, worst
from benchmarks.reports.verdicts import sampling_error
from benchmarks.results.card import Card
from benchmarks.results.provenance import machine
from benchmarks.tables.claims import ALL_TYPES, COLUMN
from benchmarks.tables.table import Column, Row, Table

Cards = Mapping[tuple[str, str, int], Card | None]  # by panel, row and seed


@dataclass(frozen=True)
class Sample:
    """One number by seed. A diverged run may still have a cost."""

    values: Mapping[int, float]
    diverged: tuple[int, ...]
    missing: tuple[int, ...]
    unmeasured: tuple[int, ...] = ()  # finished, but the evaluation left this metric out
    counted: Mapping[int, float] = field(default_factory=dict)  # the values, and the worst for diverged runs

    @property
    def runs(self) -> int:
        """How many runs have a value or diverged."""
        return len(self.values.keys() | set(self.diverged))

    @cached_property
    def mean(self) -> float | None:
        """The mean over the runs that have a value."""
        return fmean(self.values.values()) if self.values else None

    @cached_property
    def spread(self) -> float | None:
        """The standard deviation over the runs that have a value, if there are two."""
        return stdev(self.values.values()) if len(self.values) > 1 else None


def combine(samples: Sequence[Sample], formula: Callable[[list[float]], float | None]) -> Sample:
    """``formula`` of the samples' numbers, seed by seed; a seed that lacks one of them has none.

    ``formula`` gives None where it is not defined. What one sample lacks, all lack.
    """

    def by_seed(sides: list[Mapping[int, float]]) -> dict[int, float]:
        shared = [seed for seed in sides[0] if all(seed in side for side in sides)]
        found = {seed: formula([side[seed] for side in sides]) for seed in shared}
        return {seed: number for seed, number in found.items() if number is not None}

    def either(groups: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
        return tuple(sorted({seed for group in groups for seed in group}))

    return Sample(
        by_seed([sample.values for sample in samples]),
        either(sample.diverged for sample in samples),
        either(sample.missing for sample in samples),
        either(sample.unmeasured for sample in samples),
        by_seed([sample.counted for sample in samples]),
    )


def _ratio(sides: list[float]) -> float | None:
    return sides[0] / sides[1] if sides[1] > 0 else None


def _take(cards: Mapping[int, Card | None], mode: str, metric: str) -> Sample:
    """The values of ``metric`` in the cards of a row."""
    present = {seed: card for seed, card in cards.items() if card is not None}
    measured = {seed: measure(card, metric, mode) for seed, card in present.items()}
    values = {seed: value for seed, value in measured.items() if value is not None}
    diverged = tuple(seed for seed, card in present.items() if card["status"] == "diverged")
    lost = worst(metric)
    return Sample(
        values,
        diverged,
        tuple(seed for seed in cards if seed not in present),
        tuple(seed for seed, value in measured.items() if value is None and seed not in diverged),
        values if lost is None else values | {seed: lost for seed in diverged if seed not in values},
    )


class Samples:
    """The samples of one table, each taken from the cards once.

    Args:
        cards: by panel and row, then by seed.
    """

    def __init__(self, table: Table, cards: Mapping[tuple[str, str], Mapping[int, Card | None]]) -> None:
        self.table = table
        self.cards = cards
        self._taken: dict[tuple[str, str, str], Sample] = {}
        self._columns = {column.name: column for column in table.columns}

    def of(self, panel: str, row: Row, metric: str) -> Sample:
        """One metric by seed, or what stands in a column of the table (``column.NAME``)."""
        if metric.startswith(COLUMN):
            return self.column(panel, row, self._columns[metric.removeprefix(COLUMN)])
        key = panel, row.name, metric
        if key not in self._taken:
            self._taken[key] = _take(self.cards[panel, row.name], row.mode, metric)
        return self._taken[key]

    def column(self, panel: str, row: Row, column: Column) -> Sample:
        """What stands in ``column``, by seed."""
        parts = [self.of(panel, row, metric) for metric in column.metric]
        parts += [self.column(panel, row, self._columns[name]) for name in column.mean_of]
        sample = parts[0] if len(parts) == 1 else combine(parts, fmean)
        if not column.relative:
            return sample
        base = self.column(
            panel,
            self.table.row(self.table.baseline or ""),
            Column(column.name, "", column.metric, column.mean_of),
        )
        return combine([sample, base], _ratio)

    def sampling_error(self, panel: str, row: Row, column: Column) -> float:
        """The standard error that ``column`` has because its test images are finitely many, in its unit; 0: none.

        Only errors in % have one. In a ratio of errors on the same images most of it cancels, and what is left shows
        between the seeds. Metrics of one column are of disjoint sets; columns of a mean may share their images, so
        their errors are added as if they went together.
        """
        if column.relative:
            return 0.0
        if column.mean_of:
            parts = [self.sampling_error(panel, row, self._columns[name]) for name in column.mean_of]
            return math.fsum(parts) / len(parts)
        card = next((c for c in self.cards[panel, row.name].values() if c and c["metrics"]), None)
        squares = []
        for metric in column.metric:
            images = test_images(card, row.mode, metric) if card and metric.endswith(".error") else None
            mean = self.of(panel, row, metric).mean
            squares.append(sampling_error(mean, images) ** 2 if images and mean is not None else 0.0)
        return math.sqrt(math.fsum(squares)) / len(squares)

    def same_machine(self, panel: str, rows: Sequence[Row], seeds: Iterable[int]) -> bool:
        """Whether the cards of ``rows`` with these seeds, seed by seed, say the same of hardware and device."""
        for seed in seeds:
            cards = [self.cards[panel, row.name][seed] for row in rows]
            if len({machine(card["provenance"]) for card in cards if card}) > 1:
                return False
        return True

    def metrics(self, panel: str, rows: Sequence[Row], metric: str) -> list[str]:
        """``metric``, or where it stands for every corruption type those that all cards of ``rows`` have."""
        if not metric.startswith(ALL_TYPES):
            return [metric]
        types = [
            corruption_types(card, row.mode)
            for row in rows
            for card in self.cards[panel, row.name].values()
            if card and card["metrics"]
        ]
        shared = sorted(set.intersection(*map(set, types))) if types else []
        return [metric.replace(ALL_TYPES, f"type.{name}.", 1) for name in shared]
