"""From samples to findings on claims. The rules: ``docs/verdicts.md``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from benchmarks.reports.measures import exact, worst
from benchmarks.reports.samples import Sample, Samples, combine
from benchmarks.reports.verdicts import (
    Finding,
    Paired,
    Verdict,
    compare_count,
    difference_from_stated,
    equivalence,
    every,
    mean_of,
    most,
    orderings,
    paired,
)
from benchmarks.tables.claims import EACH, HIGHEST, Claim, Ordering, Ratio, StatedNumber
from benchmarks.tables.table import FULL, Panel, Row, Scale, Table


@dataclass(frozen=True)
class Compared:
    """One of the numbers that a claim compares."""

    title: str
    metric: str
    sample: Sample


@dataclass(frozen=True)
class ClaimFinding:
    """A claim on one panel, or over all that it is about (``panel`` None), and the numbers that decided it."""

    claim: Claim
    panel: Panel | None
    sides: tuple[Compared, ...]
    finding: Finding


SECONDS = ("seconds", "seconds_per_epoch")
ONE_SEED = "one seed has no spread; two or more are needed"
Judged = tuple[tuple[Compared, ...], Finding | Paired]


def judge_claims(table: Table, scale: Scale, samples: Samples) -> tuple[ClaimFinding, ...]:
    """The findings on all claims on all panels; the orderings are corrected together."""
    found: list[ClaimFinding] = []
    tests: dict[int, Paired] = {}
    for claim, panel in _places(table, scale):
        sides, result = _judge(claim, panel, table, scale, samples)
        if isinstance(result, Paired):
            tests[len(found)] = result
            result = Finding(Verdict.INCONCLUSIVE)  # until all of the table's tests are there
        found.append(ClaimFinding(claim, panel, sides, result))
    for index, finding in zip(tests, orderings(list(tests.values())), strict=True):
        note = tests[index].note
        claim = found[index].claim
        part = (
            f"on {len(claim.metrics)} of {claim.stated} measures" if claim.stated > len(claim.metrics) else ""
        )
        reason = "; ".join(part for part in (note, part, finding.reason) if part)
        found[index] = replace(found[index], finding=replace(finding, reason=reason))
    return tuple(
        replace(f, finding=with_caveats(f.finding, f.claim.metrics[0], [side.sample for side in f.sides]))
        for f in found
    )


def _places(table: Table, scale: Scale) -> list[tuple[Claim, Panel | None]]:
    """Every claim with every panel that it is judged on; None: over all its panels together."""
    places: list[tuple[Claim, Panel | None]] = []
    for claim in table.claims:
        about = [panel for panel in scale.panels if claim.is_about(panel.name)]
        joint = isinstance(claim, StatedNumber) and claim.over != EACH
        places += [(claim, None)] if joint and about else [(claim, panel) for panel in about]
    return places


def _judge(claim: Claim, panel: Panel | None, table: Table, scale: Scale, samples: Samples) -> Judged:
    rows = [table.row(name) for name in claim.rows]
    if isinstance(claim, StatedNumber):
        names = [p.name for p in scale.panels if claim.is_about(p.name)] if panel is None else [panel.name]
        return _number(claim, names, rows, scale, samples)
    assert panel is not None
    if isinstance(claim, Ratio):
        return _ratio(claim, panel.name, rows, scale, samples)
    assert isinstance(claim, Ordering)
    return _ordering(claim, panel.name, rows, samples)


def _ratio(claim: Ratio, panel: str, rows: Sequence[Row], scale: Scale, samples: Samples) -> Judged:
    sides = tuple(Compared(row.title, claim.metric, samples.of(panel, row, claim.metric)) for row in rows)
    above, below = (side.sample for side in sides)
    if lacking := _lacking(above, below):
        return sides, lacking
    pairs = {seed: pair for seed, pair in _pairs(above, below).items() if pair[1] > 0}
    ratios = [first / second for first, second in pairs.values()]
    if len(ratios) < 2:
        return sides, _too_few(len(ratios), ratios[0] if ratios else None)
    found = equivalence(mean_of(ratios), claim.expected, claim.margin)
    apart = claim.metric.endswith(SECONDS) and not samples.same_machine(panel, rows, list(pairs))
    if reason := mismatch(scale, "timed on different machines" if apart else ""):
        return sides, replace(found, verdict=Verdict.PROTOCOL_MISMATCH, reason=reason, more_seeds=None)
    return sides, found


def _number(
    claim: StatedNumber, panels: list[str], rows: Sequence[Row], scale: Scale, samples: Samples
) -> Judged:
    mains, minus = rows[: len(claim.row)], rows[len(claim.row) :]
    places = [(panel, row) for panel in panels for row in mains]
    found = [samples.of(panel, row, claim.metric) for panel, row in places]
    taken = [[samples.of(panel, other, claim.metric) for other in minus] for panel, _ in places]
    sides = [Compared(" and ".join(row.title for row in mains), claim.metric, _mean(found))]
    sides += (
        [Compared(minus[0].title, claim.metric, _mean([part for parts in taken for part in parts]))]
        if minus
        else []
    )
    for sample in (*found, *(part for parts in taken for part in parts)):
        if lacking := _lacking(sample):
            return tuple(sides), lacking
    pairs = [[sample, *parts] for sample, parts in zip(found, taken, strict=True)]
    differences = [combine(pair, lambda numbers: numbers[0] - sum(numbers[1:])) for pair in pairs]
    values = list(combine(differences, max if claim.over == HIGHEST else fmean).counted.values())
    estimate = fmean(values) if values else None
    if reason := mismatch(scale, claim.mismatch):
        return tuple(sides), Finding(Verdict.PROTOCOL_MISMATCH, reason, estimate)
    if exact(claim.metric) and values:
        return tuple(sides), compare_count(values, claim.expected, claim.margin)
    if len(values) < 2:
        return tuple(sides), _too_few(len(values), estimate)
    return tuple(sides), equivalence(difference_from_stated(values), claim.expected, claim.margin)


def _mean(samples: list[Sample]) -> Sample:
    return samples[0] if len(samples) == 1 else combine(samples, fmean)


def _ordering(claim: Ordering, panel: str, rows: Sequence[Row], samples: Samples) -> Judged:
    """Every comparison by itself, then all together."""
    metrics = [name for metric in claim.metric for name in samples.metrics(panel, rows, metric)]
    lower, *others = rows
    parts = [
        (
            Compared(lower.title, metric, samples.of(panel, lower, metric)),
            Compared(higher.title, metric, samples.of(panel, higher, metric)),
        )
        for higher in others
        for metric in metrics
    ]
    if not parts:  # no card tells which corruption types there are
        sides = tuple(
            Compared(row.title, claim.metric[0], samples.of(panel, row, "clean.error")) for row in rows
        )
        return sides, _lacking(*(side.sample for side in sides)) or Finding(
            Verdict.INCONCLUSIVE, "not measured"
        )
    for sides in parts:
        if lacking := _lacking(*(side.sample for side in sides)):
            return sides, lacking
    tests = [_paired(*(side.sample for side in sides)) for sides in parts]
    undecided = next((i for i, test in enumerate(tests) if isinstance(test, Finding)), None)
    if undecided is not None:
        return parts[undecided], tests[undecided]
    decided = [test for test in tests if isinstance(test, Paired)]
    if len(decided) == 1:
        return parts[0], decided[0]
    names = [f"{higher.title}, {higher.metric}" for _, higher in parts]
    together = most(decided, names) if claim.most else every(decided, names)
    return parts[together.which], together


def _paired(left: Sample, right: Sample) -> Finding | Paired:
    """The test of left < right, or why there is none."""
    pairs = _pairs(left, right).values()
    differences = [below - above for below, above in pairs]
    if len(differences) < 2:
        return _too_few(len(differences), differences[0] if differences else None)
    if len({round(difference, 9) for difference in differences}) == 1:
        reason = "the seeds' differences do not differ to the last digit, which no test can judge"
        return Finding(Verdict.INCONCLUSIVE, reason, fmean(differences))
    return paired(*zip(*pairs, strict=True))


def _pairs(left: Sample, right: Sample) -> dict[int, tuple[float, float]]:
    """The numbers of each seed that counts on both sides."""
    return {
        seed: (number, right.counted[seed]) for seed, number in left.counted.items() if seed in right.counted
    }


def mismatch(scale: Scale, reason: str = "") -> str:
    """Why a number must not face what was published: for a ``reason`` of its own, or the scale; empty: it may."""
    return reason or ("" if scale.name == FULL else f"{scale.name} scale")


def _too_few(seeds: int, estimate: float | None) -> Finding:
    return Finding(Verdict.INCONCLUSIVE, ONE_SEED if seeds else "no seed has all of the numbers", estimate)


def _lacking(*samples: Sample) -> Finding | None:
    """The finding where one of the samples has no run at all: none was made, or the metric was left out."""
    for sample in samples:
        if not sample.runs:
            return without_numbers(sample)
    return None


def without_numbers(sample: Sample) -> Finding:
    """The verdict where no run has a value: none was made, or the evaluation left the metric out."""
    if sample.unmeasured:
        return Finding(Verdict.INCONCLUSIVE, "not measured")
    return Finding(Verdict.NOT_RUN)


def with_caveats(finding: Finding, metric: str, samples: Sequence[Sample]) -> Finding:
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
