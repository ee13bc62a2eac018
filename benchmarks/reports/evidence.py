"""From cards to findings: everything a report says, before it is put into words.

Pure: the same table, scale, seeds, cards and published numbers give the same evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from benchmarks.reports.measures import corruption_types, measure, test_images, worst
from benchmarks.reports.verdicts import (
    Finding,
    Paired,
    Verdict,
    difference_from_published,
    equivalence,
    mean_ratio,
    orderings,
    paired,
)
from benchmarks.results.card import Card
from benchmarks.tables.published import Published, PublishedValue
from benchmarks.tables.table import FULL, Claim, Column, Ordering, Panel, Ratio, Row, Scale, Table

Cards = Mapping[tuple[str, str, int], Card | None]  # by panel, row and seed


@dataclass(frozen=True)
class Sample:
    """One metric of one row on one panel, by seed. A diverged run may still have a cost."""

    values: Mapping[int, float]
    diverged: tuple[int, ...]
    missing: tuple[int, ...]
    unmeasured: tuple[int, ...] = ()  # finished, but the evaluation left this metric out

    @property
    def runs(self) -> int:
        """How many runs have a value or diverged."""
        return len(self.values.keys() | set(self.diverged))

    @property
    def mean(self) -> float | None:
        """The mean over the runs that have a value."""
        return fmean(self.values.values()) if self.values else None

    @property
    def spread(self) -> float | None:
        """The standard deviation over the runs that have a value, if there are two."""
        return stdev(self.values.values()) if len(self.values) > 1 else None

    def counting_diverged(self, metric: str) -> dict[int, float]:
        """The values by seed, with the metric's worst for the runs that diverged before they had one."""
        lost = worst(metric)
        return dict(self.values) | (
            {} if lost is None else {s: lost for s in self.diverged if s not in self.values}
        )


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
class ClaimFinding:
    """A claim on one panel: ``left`` is the lower row or the numerator, ``right`` the other."""

    claim: Claim
    panel: Panel
    left: Sample
    right: Sample
    finding: Finding


@dataclass(frozen=True)
class Evidence:
    """All that a report shows of one table at one scale."""

    table: Table
    scale: Scale
    seeds: tuple[int, ...]
    published: Published | None
    lines: Mapping[str, tuple[Line, ...]]  # by panel
    claims: tuple[ClaimFinding, ...]

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
        cards = {(p, line.row.name): line.cards for p, lines in self.lines.items() for line in lines}
        cells = self.table.cells(self.scale.name, self.seeds)
        return sum(all(cards[cell.panel, row][cell.seed] is None for row in cell.rows) for cell in cells)

    def counts(self, kind: type[Ordering] | type[Ratio] | None) -> Counter[Verdict]:
        """The verdicts on claims of one kind, or on the published numbers (None)."""
        if kind is None:
            numbers = (n for lines in self.lines.values() for line in lines for n in line.numbers)
            return Counter(number.finding.verdict for number in numbers)
        return Counter(found.finding.verdict for found in self.claims if isinstance(found.claim, kind))

    def corruption_types(self, panel: str) -> list[str]:
        """All types that any card of the panel was evaluated on, in alphabetical order."""
        cards = (card for line in self.lines[panel] for card in line.cards.values() if card)
        return sorted({name for card in cards for name in corruption_types(card)})

    def sample(self, panel: str, row: Row, metric: str) -> Sample:
        """One metric by seed."""
        line = next(line for line in self.lines[panel] if line.row.name == row.name)
        return take(line.cards, row, metric)


def take(cards: Mapping[int, Card | None], row: Row, metric: str) -> Sample:
    """The values of ``metric`` in the cards of ``row``."""
    present = {seed: card for seed, card in cards.items() if card is not None}
    measured = {seed: measure(card, metric, row.mode) for seed, card in present.items()}
    diverged = tuple(seed for seed, card in present.items() if card["status"] == "diverged")
    return Sample(
        {seed: value for seed, value in measured.items() if value is not None},
        diverged,
        tuple(seed for seed in cards if seed not in present),
        tuple(seed for seed, value in measured.items() if value is None and seed not in diverged),
    )


def gather(
    table: Table, scale: str, seeds: Sequence[int], cards: Cards, published: Published | None
) -> Evidence:
    """The evidence on ``table`` at ``scale``. A (panel, row, seed) without a card counts as not run."""
    chosen = table.scale(scale)
    if published is not None:
        table.check_published(published)
    lines = {}
    for panel in chosen.panels:
        of_panel = []
        for row in table.rows:
            by_seed = {seed: cards.get((panel.name, row.name, seed)) for seed in seeds}
            numbers = tuple(_number(chosen, row, column, by_seed, published) for column in table.columns)
            of_panel.append(Line(row, by_seed, numbers))
        lines[panel.name] = tuple(of_panel)
    evidence = Evidence(table, chosen, tuple(seeds), published, lines, ())
    return replace(evidence, claims=_claims(evidence))


def _number(
    scale: Scale, row: Row, column: Column, cards: Mapping[int, Card | None], published: Published | None
) -> Number:
    sample = take(cards, row, column.metric)
    value = None
    if published is not None and row.published is not None:
        value = published.value(row.published, column.published or column.name)
    counted = list(sample.counting_diverged(column.metric).values())
    images = next((test_images(card, row.mode) for card in cards.values() if card and card["metrics"]), None)
    finding = _judge(scale, column, sample, counted, value, images)
    return Number(column, value, sample, finding)


def _judge(
    scale: Scale,
    column: Column,
    sample: Sample,
    counted: list[float],
    value: PublishedValue | None,
    images: int | None,
) -> Finding:
    """The verdict on one published number."""
    if not sample.runs:
        return _without_numbers(sample)
    if value is None:
        return Finding(Verdict.NO_REFERENCE, "a row of our own")
    if value.value is None:
        return Finding(Verdict.NO_REFERENCE, value.reason)
    difference = None if sample.mean is None or sample.diverged else sample.mean - value.value
    if scale.name != FULL:
        return Finding(Verdict.PROTOCOL_MISMATCH, f"{scale.name} scale", difference)
    if column.margin is None:
        return Finding(Verdict.INCONCLUSIVE, "the table states no margin", difference)
    if len(counted) < sample.runs:
        return Finding(Verdict.INCONCLUSIVE, "a run has no value of this metric", difference)
    if len(counted) < 2:
        return Finding(Verdict.INCONCLUSIVE, "one seed has no spread", difference, more_seeds=1)
    binomial = images if column.metric.endswith(".error") else None
    estimate = difference_from_published(counted, value.value, value.spread, value.runs, binomial)
    return _with_caveats(equivalence(estimate, 0.0, column.margin), column.metric, (sample,))


def _without_numbers(sample: Sample) -> Finding:
    """The verdict where no run has a value: none was run, or the evaluation left the metric out."""
    if sample.unmeasured:
        return Finding(Verdict.INCONCLUSIVE, "not measured")
    return Finding(Verdict.NOT_RUN)


def _claims(evidence: Evidence) -> tuple[ClaimFinding, ...]:
    """The findings on all claims on all panels; the orderings are corrected together."""
    found: list[ClaimFinding] = []
    tests: dict[int, Paired] = {}
    for panel in evidence.scale.panels:
        for claim in evidence.table.claims:
            left, right = (
                evidence.sample(panel.name, evidence.table.row(name), claim.metric) for name in claim.rows
            )
            result = _test(claim, left, right)
            if isinstance(result, Paired):
                tests[len(found)] = result
                result = Finding(Verdict.INCONCLUSIVE)  # until all of the table's tests are there
            found.append(ClaimFinding(claim, panel, left, right, result))
    for index, finding in zip(tests, orderings(list(tests.values())), strict=True):
        found[index] = replace(found[index], finding=finding)
    return tuple(
        replace(f, finding=_with_caveats(f.finding, f.claim.metric, (f.left, f.right))) for f in found
    )


def _test(claim: Claim, left: Sample, right: Sample) -> Finding | Paired:
    """A claim on one panel: a finding, or for an ordering a test that awaits its correction."""
    for sample in (left, right):
        if not sample.runs:
            return _without_numbers(sample)
    ours, others = left.counting_diverged(claim.metric), right.counting_diverged(claim.metric)
    seeds = [seed for seed in ours if seed in others and (others[seed] > 0 or isinstance(claim, Ordering))]
    firsts, seconds = [ours[seed] for seed in seeds], [others[seed] for seed in seeds]
    if isinstance(claim, Ratio):
        estimate = fmean(a / b for a, b in zip(firsts, seconds, strict=True)) if seeds else None
    else:
        estimate = fmean(a - b for a, b in zip(firsts, seconds, strict=True)) if seeds else None
    if len(seeds) < 2:
        reason = "one seed has no spread" if seeds else "no seed has both numbers"
        return Finding(Verdict.INCONCLUSIVE, reason, estimate, more_seeds=2 - len(seeds))
    if isinstance(claim, Ratio):
        return equivalence(mean_ratio(firsts, seconds), claim.expected, claim.margin)
    if len({round(a - b, 9) for a, b in zip(firsts, seconds, strict=True)}) == 1:
        reason = "the seeds' differences do not differ to the last digit, which no test can judge"
        return Finding(Verdict.INCONCLUSIVE, reason, estimate)
    return paired(firsts, seconds)


def _with_caveats(finding: Finding, metric: str, samples: Sequence[Sample]) -> Finding:
    """``finding`` with what the reader must know of diverged and missing runs in its reason."""
    if finding.verdict is Verdict.NOT_RUN:
        return finding
    notes = [finding.reason] if finding.reason else []
    diverged = sum(len(sample.diverged) for sample in samples)
    lost = worst(metric)
    if diverged and lost is not None:
        runs = "1 diverged run counts" if diverged == 1 else f"{diverged} diverged runs count"
        notes.append(f"{runs} as {lost:g}{' %' if lost == 100 else ''}")
    elif diverged:
        notes.append(f"{diverged} diverged run{'s' * (diverged > 1)}")
    missing = len({seed for sample in samples for seed in sample.missing})
    if missing:
        notes.append(f"{missing} seed{'s' * (missing > 1)} not run")
    unmeasured = len({seed for sample in samples if sample.runs for seed in sample.unmeasured})
    if unmeasured:
        notes.append(f"{unmeasured} seed{'s' * (unmeasured > 1)} not measured")
    return replace(finding, reason="; ".join(notes))
