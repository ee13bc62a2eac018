"""Verdicts: what the evidence says of a claim, at error rates that are stated and tested by simulation.

Numbers and ratios.  Two one-sided t tests at level ``ALPHA`` against expected ± margin (equivalence, TOST):
    REPRODUCED    both reject: the 90 % interval lies inside the margin
    DIFFERENT     the 90 % interval lies wholly outside the margin
    INCONCLUSIVE  it crosses a margin
Whatever the truth, the chance to call a number REPRODUCED that is not, or DIFFERENT that is not, is at most
``ALPHA``. The error of a difference from a published number has up to three independent parts:
    our spread² / our runs
    the paper's spread² / its runs; where it prints no spread, ours stands for it
    error (100 - error) / test images, in %²: the test set is finite, and its images are a sample. In a mean of
    disjoint sets these errors add as squares, in a mean of columns, whose images may be the same, as they are
Half the interval is the root of the sum of t² variance over the parts, t with the degrees of freedom of each
(Banerjee, Sankhya 22, 1960). It never covers less than it says, because the chi-squared distribution
function with one degree of freedom is concave; Welch's degrees of freedom, at three seeds, miss up to 6.2 %
on a side instead of 5. With one part this is the ordinary t interval.

Orderings.  A one-sided t test paired by seed, in both directions, each corrected over the table (Holm):
    REPRODUCED    the ordering is significant
    DIFFERENT     its opposite is
    INCONCLUSIVE  neither

    An ordering of several comparisons (every severity, every other method) holds where each of them does; one of most
    of them where more than half do.

Counts (FLOPs, parameters) have no error: REPRODUCED within the margin, else DIFFERENT.

A run that diverged counts as the worst value of its metric. One seed has no spread, so it decides nothing. The same
with worked examples: ``docs/verdicts.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from statistics import fmean, stdev

from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

ALPHA = 0.05
POWER = 0.8
MOST_SEEDS = 1000


class Verdict(StrEnum):
    """What the evidence says of a claim."""

    REPRODUCED = "REPRODUCED"
    DIFFERENT = "DIFFERENT"
    INCONCLUSIVE = "INCONCLUSIVE"
    NO_REFERENCE = "NO REFERENCE"
    PROTOCOL_MISMATCH = "PROTOCOL MISMATCH"
    NOT_RUN = "NOT RUN"


@dataclass(frozen=True)
class Finding:
    """A verdict with its evidence. ``low`` to ``high``: 90 % interval of ``estimate``."""

    verdict: Verdict
    reason: str = ""
    estimate: float | None = None  # difference of two means, or mean ratio
    low: float | None = None
    high: float | None = None
    p: float | None = (
        None  # of the test that an ordering holds; where it is DIFFERENT, that its opposite does
    )
    corrected_p: float | None = None  # after Holm's correction over the table
    more_seeds: int | None = (
        None  # about so many more would decide (power ``POWER``), if things stay as they are
    )


@dataclass(frozen=True)
class MeanEstimate:
    """A mean over runs with what is known of its error."""

    value: float
    spread: float  # standard deviation between our runs
    runs: int
    borrowing: float = math.inf  # runs of the paper for which our spread stands: adds spread² / borrowing
    fixed: tuple[tuple[float, float], ...] = ()  # (variance, degrees of freedom) that more runs do not shrink

    def interval(self, runs: int | None = None) -> tuple[float, float, float]:
        """Half the 90 % interval, standard error, Welch's degrees of freedom, as if there were ``runs``."""
        runs = self.runs if runs is None else runs
        ours = (self.spread**2 * (1 / runs + 1 / self.borrowing), runs - 1.0)
        terms = [(variance, freedom) for variance, freedom in (ours, *self.fixed) if variance > 0]
        if not terms:
            return 0.0, 0.0, math.inf
        total = math.fsum(variance for variance, _ in terms)
        squares = math.fsum(variance**2 / freedom for variance, freedom in terms)
        half = math.sqrt(math.fsum(v * _quantile(freedom) ** 2 for v, freedom in terms))
        return half, math.sqrt(total), total**2 / squares if squares > 0 else math.inf


def sampling_error(error: float, images: int) -> float:
    """The standard error in % of an error measured on ``images`` images, which are a sample of all there could be."""
    return math.sqrt(max(0.0, error * (100 - error)) / images)


def difference_from_published(
    values: Sequence[float], published: float, spread: float | None, runs: int | None, sampling: float = 0.0
) -> MeanEstimate:
    """Our mean minus the published one. ``sampling``: standard error of the finite test set, in the unit of both."""
    fixed = []
    borrowing = math.inf
    paper_runs = runs or 1
    if spread is not None and paper_runs > 1:
        fixed.append((spread**2 / paper_runs, paper_runs - 1.0))
    else:
        borrowing = paper_runs
    if sampling > 0:
        fixed.append((sampling**2, math.inf))
    return MeanEstimate(fmean(values) - published, stdev(values), len(values), borrowing, tuple(fixed))


def difference_from_stated(values: Sequence[float]) -> MeanEstimate:
    """Our mean, to be held against a number that the paper states of one run, without a spread: ours stands for it."""
    return MeanEstimate(fmean(values), stdev(values), len(values), borrowing=1)


def compare_count(values: Sequence[float], expected: float, margin: float) -> Finding:
    """The verdict on a number that is counted, not measured: it has no error, so one run decides."""
    value = fmean(values)
    if max(values) - min(values) > 1e-9 * max(1.0, abs(value)):
        return Finding(Verdict.INCONCLUSIVE, "counts differ between the seeds", value)
    same = abs(value - expected) <= margin
    return Finding(Verdict.REPRODUCED if same else Verdict.DIFFERENT, "counted, without error", value)


def mean_of(values: Sequence[float]) -> MeanEstimate:
    """The mean over seeds of what is held against nothing that has an error of its own, such as ratios of ours."""
    return MeanEstimate(fmean(values), stdev(values), len(values))


def decide(estimate: MeanEstimate, expected: float, margin: float) -> Finding:
    """The verdict on: ``estimate`` is ``expected``, give or take ``margin``. Rules: module's docstring."""
    half = estimate.interval()[0]
    if half == 0:
        reason = "the runs do not differ to the last digit, which no test can judge"
        return Finding(Verdict.INCONCLUSIVE, reason, estimate.value)
    off = abs(estimate.value - expected)
    verdict = Verdict.INCONCLUSIVE
    if off + half <= margin:
        verdict = Verdict.REPRODUCED
    elif off - half >= margin:
        verdict = Verdict.DIFFERENT
    return Finding(verdict, "", estimate.value, estimate.value - half, estimate.value + half)


def equivalence(estimate: MeanEstimate, expected: float, margin: float) -> Finding:
    """As :func:`decide`, with the seeds that are still needed where that is INCONCLUSIVE."""
    found = decide(estimate, expected, margin)
    off = abs(estimate.value - expected)

    def power(runs: int) -> float:
        half, error, freedom = estimate.interval(runs)
        level = float(stats.t.sf(half / error, freedom))  # what the interval amounts to in Welch's test
        if off > margin:
            return _power((off - margin) / error, freedom, level)
        both = (_power((margin - side) / error, freedom, level) for side in (off, -off))
        return max(0.0, math.fsum(both) - 1)

    undecided = found.verdict is Verdict.INCONCLUSIVE and not found.reason
    return _with_seeds_needed(found, estimate.runs, power) if undecided else found


@dataclass(frozen=True)
class Paired:
    """Differences lower - higher by seed, tested in both directions."""

    mean: float
    spread: float
    runs: int
    low: float
    high: float
    p: float  # one-sided, for lower < higher
    opposite_p: float
    note: str = ""
    which: int = 0  # of several comparisons, the one whose numbers these are


def paired(lower: Sequence[float], higher: Sequence[float]) -> Paired:
    """The one-sided t tests paired by seed. The differences must not be all alike."""
    differences = [below - above for below, above in zip(lower, higher, strict=True)]
    test = stats.ttest_rel(lower, higher, alternative="less")
    interval = stats.ttest_rel(lower, higher).confidence_interval(1 - 2 * ALPHA)
    return Paired(
        mean=fmean(differences),
        spread=stdev(differences),
        runs=len(differences),
        low=float(interval.low),
        high=float(interval.high),
        p=float(test.pvalue),
        opposite_p=float(stats.t.sf(test.statistic, test.df)),
    )


def every(tests: Sequence[Paired], names: Sequence[str]) -> Paired:
    """The test that all of ``tests`` hold, with the numbers of the weakest.

    All hold where each does by itself: its p is the largest (an intersection-union test, which needs no correction).
    The opposite, that at least one is the other way round, has the least of theirs times how many there are.
    """
    weakest = max(range(len(tests)), key=lambda index: tests[index].p)
    opposite = min(1.0, len(tests) * min(test.opposite_p for test in tests))
    note = f"weakest of {len(tests)} comparisons: {names[weakest]}"
    return replace(tests[weakest], opposite_p=opposite, note=note, which=weakest)


def most(tests: Sequence[Paired], names: Sequence[str]) -> Paired:
    """The test that more than half of ``tests`` hold, with the numbers of the one that decides.

    With n tests, u of them must hold (u = n // 2 + 1): p is n - u + 1 times the u-th smallest, a test of the partial
    conjunction that is valid however they depend on each other (Benjamini and Heller, Biometrics 64, 2008). The
    opposite, that at least half are the other way round, likewise with u = n - n // 2.
    """
    count = len(tests)
    needed, reversed_ = count // 2 + 1, count - count // 2
    order = sorted(range(count), key=lambda index: tests[index].p)
    deciding = tests[order[needed - 1]]
    opposite = sorted(test.opposite_p for test in tests)[reversed_ - 1]
    return replace(
        deciding,
        p=min(1.0, (count - needed + 1) * deciding.p),
        opposite_p=min(1.0, (count - reversed_ + 1) * opposite),
        note=f"number {needed} of {count} comparisons: {names[order[needed - 1]]}",
        which=order[needed - 1],
    )


def decide_orderings(tests: Sequence[Paired]) -> list[Finding]:
    """The verdicts on all orderings of a table, Holm-corrected within each direction."""
    if not tests:
        return []
    holds = multipletests([test.p for test in tests], ALPHA, method="holm")[1]
    opposite = multipletests([test.opposite_p for test in tests], ALPHA, method="holm")[1]
    found = []
    for test, p, opposite_p in zip(tests, holds, opposite, strict=True):
        verdict, raw, corrected = Verdict.INCONCLUSIVE, test.p, p
        if p <= ALPHA:
            verdict = Verdict.REPRODUCED
        elif opposite_p <= ALPHA:
            verdict, raw, corrected = Verdict.DIFFERENT, test.opposite_p, opposite_p
        found.append(Finding(verdict, "", test.mean, test.low, test.high, raw, float(corrected)))
    return found


def orderings(tests: Sequence[Paired]) -> list[Finding]:
    """As :func:`decide_orderings`, with the seeds that are still needed where that is INCONCLUSIVE."""
    level = ALPHA / max(len(tests), 1)  # the strictest that Holm's correction asks of any of them

    def needed(test: Paired) -> Callable[[int], float]:
        effect = abs(test.mean) / test.spread
        return lambda runs: _power(effect * math.sqrt(runs), runs - 1, level)

    return [
        _with_seeds_needed(found, test.runs, needed(test)) if found.verdict is Verdict.INCONCLUSIVE else found
        for found, test in zip(decide_orderings(tests), tests, strict=True)
    ]


@cache
def _quantile(freedom: float) -> float:
    return float(stats.t.ppf(1 - ALPHA, freedom))


def _power(shift: float, freedom: float, level: float) -> float:
    """Power of a one-sided t test whose statistic is expected at ``shift`` standard errors."""
    # nobs = 1 makes the effect size the shift itself. Beyond some size the non-central t cannot be computed.
    freedom = min(freedom, 1e6)
    return 1.0 if shift > 30 else float(TTestPower().power(shift, 1, level, df=freedom, alternative="larger"))


def _with_seeds_needed(found: Finding, runs: int, power: Callable[[int], float]) -> Finding:
    """``found`` with the least number of further runs at which ``power(runs)`` reaches ``POWER``."""
    if power(MOST_SEEDS) < POWER:
        return replace(found, reason=f"even {MOST_SEEDS} seeds would not decide")
    low, high = 1, MOST_SEEDS  # one seed has no spread
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return replace(found, more_seeds=max(high - runs, 1))
