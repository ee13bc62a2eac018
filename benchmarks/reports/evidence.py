"""From cards to findings: everything a report says, before it is put into words.

Pure: the same table, scale, seeds, cards and published numbers give the same evidence.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.reports.claim_findings import (
    ONE_SEED,
    ClaimFinding,
    judge_claims,
    mismatch,
    with_caveats,
    without_numbers,
)
from benchmarks.reports.measures import corruption_types, exact
from benchmarks.reports.samples import Cards, Sample, Samples
from benchmarks.reports.verdicts import (
    Finding,
    Verdict,
    compare_count,
    difference_from_published,
    equivalence,
)
from benchmarks.results.card import Card
from benchmarks.tables.claims import Claim
from benchmarks.tables.published import Published, PublishedValue
from benchmarks.tables.table import NOT_PRINTED, Column, Panel, Row, Scale, Table

__all__ = ["Cards", "ClaimFinding", "Evidence", "Line", "Number", "Sample", "gather"]


@dataclass(frozen=True)
class Number:
    """What stands in one row and column: published, measured, and the verdict."""

    column: Column
    published: PublishedValue | None
    sample: Sample
    finding: Finding


@dataclass(frozen=True)
class Line:
    """One row on one panel."""

    row: Row
    cards: Mapping[int, Card | None]  # by seed
    numbers: tuple[Number, ...]


@dataclass(frozen=True)
class Evidence:
    """All that a report shows of one table at one scale."""

    table: Table
    scale: Scale
    seeds: tuple[int, ...]
    published: Published | None
    lines: Mapping[str, tuple[Line, ...]]  # by panel
    claims: tuple[ClaimFinding, ...]
    samples: Samples

    @property
    def cards(self) -> list[Card]:
        """The distinct cards, in the table's order."""
        found = [
            card for lines in self.lines.values() for line in lines for card in line.cards.values() if card
        ]
        return list({card["id"]: card for card in found}.values())

    @property
    def missing(self) -> int:
        """How many cells have no card."""
        cards = self.samples.cards
        cells = self.table.cells(self.scale.name, self.seeds)
        return sum(all(cards[cell.panel, row][cell.seed] is None for row in cell.rows) for cell in cells)

    def counts(self, kind: type[Claim] | None) -> Counter[Verdict]:
        """The verdicts on claims of one kind, or on the published numbers (None)."""
        if kind is None:
            numbers = (n for lines in self.lines.values() for line in lines for n in line.numbers)
            return Counter(number.finding.verdict for number in numbers if number.published is not None)
        return Counter(found.finding.verdict for found in self.claims if isinstance(found.claim, kind))

    def corruption_types(self, panel: str) -> list[str]:
        """All types that any card of the panel was evaluated on, in alphabetical order."""
        cards = (card for line in self.lines[panel] for card in line.cards.values() if card)
        return sorted({name for card in cards for name in corruption_types(card)})

    def sample(self, panel: str, row: Row, metric: str) -> Sample:
        """One metric by seed."""
        return self.samples.of(panel, row, metric)


def gather(
    table: Table, scale: str, seeds: Sequence[int], cards: Cards, published: Published | None
) -> Evidence:
    """The evidence on ``table``, as it is at ``scale``. A (panel, row, seed) without a card counts as not run."""
    if published is not None:
        table.check_published(published)
    chosen = table.scale(scale)
    by_seed = {
        (panel.name, row.name): {seed: cards.get((panel.name, row.name, seed)) for seed in seeds}
        for panel in chosen.panels
        for row in table.rows
    }
    samples = Samples(table, by_seed)
    lines = {
        panel.name: tuple(
            Line(
                row,
                by_seed[panel.name, row.name],
                tuple(_number(chosen, panel, row, column, samples, published) for column in table.columns),
            )
            for row in table.rows
        )
        for panel in chosen.panels
    }
    gc.freeze()  # statsmodels collects garbage at every correction, which takes long among thousands of cards
    try:
        claims = judge_claims(table, chosen, samples)
    finally:
        gc.unfreeze()
    return Evidence(table, chosen, tuple(seeds), published, lines, claims, samples)


def _number(
    scale: Scale, panel: Panel, row: Row, column: Column, samples: Samples, published: Published | None
) -> Number:
    sample = samples.column(panel.name, row, column)
    value, key = None, row.published_in(panel)
    if published is not None and key is not None and column.published != NOT_PRINTED:
        value = published.value(key, column.published or column.name)
    error = samples.sampling_error(panel.name, row, column)
    finding = _judge(scale, column, sample, value, error)
    return Number(column, value, sample, finding)


def _judge(
    scale: Scale, column: Column, sample: Sample, value: PublishedValue | None, sampling: float
) -> Finding:
    """The verdict on one published number."""
    if not sample.runs:
        return without_numbers(sample)
    if value is None:
        own = "a row of our own" if column.published != NOT_PRINTED else "the paper does not print it"
        return Finding(Verdict.NO_REFERENCE, own)
    if value.value is None:
        return Finding(Verdict.NO_REFERENCE, value.reason)
    difference = None if sample.mean is None or sample.diverged else sample.mean - value.value
    if reason := mismatch(scale, column.mismatch):
        return Finding(Verdict.PROTOCOL_MISMATCH, reason, difference)
    counted = list(sample.counted.values())
    return _compare(column, sample, counted, value, value.value, difference, sampling)


def _compare(
    column: Column,
    sample: Sample,
    counted: list[float],
    value: PublishedValue,
    printed: float,
    difference: float | None,
    sampling: float,
) -> Finding:
    """The verdict where there are numbers on both sides that may be compared."""
    metric = column.metric[0] if column.metric else "clean.error"
    if column.margin is None:
        return Finding(Verdict.INCONCLUSIVE, "the table states no margin", difference)
    if len(counted) < sample.runs:
        return Finding(Verdict.INCONCLUSIVE, "a run has no value of this metric", difference)
    if all(map(exact, column.metric)) and column.metric:
        return compare_count([number - printed for number in counted], 0.0, column.margin)
    if len(counted) < 2:
        return Finding(Verdict.INCONCLUSIVE, ONE_SEED, difference)
    estimate = difference_from_published(counted, printed, value.spread, value.runs, sampling)
    return with_caveats(equivalence(estimate, 0.0, column.margin), metric, (sample,))
