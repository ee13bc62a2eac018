"""Whether a number differs between two sides beyond noise.

The test follows from the seeds that each side has:

    the same two or more seeds on both sides    t test paired by seed
    two or more on both, not the same           Welch's t test
    one on one side, more on the other          Student's t test with the spread of the side that has one
    one on both sides                           for errors the finite test set alone: two proportions of its images

Where all paired differences are alike, a t test has no spread to go by; errors are then judged as proportions of the
images of all seeds. The test images are the same on both sides and those of a mean over corruptions are few images
many times, so proportions of n images err towards "within noise". What has no test (one seed's likelihood) is not
judged. Numbers that agree to :data:`ROUNDING` are the same up to the order of float32 sums.

P values are Holm-corrected over all tests of a comparison; intervals are of 95 % each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import fmean, stdev
from typing import Any

from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, test_proportions_2indep

ALPHA = 0.05
ROUNDING = 1e-5
"""Relative. Sums of float32, whose numbers have 24 bits, in another order."""

Values = Mapping[int, float]
"""One metric by seed."""


class Change(StrEnum):
    """What may be said of a number; lower is better for all that are compared."""

    WORSE = "worse"
    BETTER = "better"
    NOISE = "within noise"
    EQUAL = "equal"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Judged:
    """B - A of one metric. ``low`` to ``high``: 95 % interval; ``p``: two-sided, of no difference."""

    change: Change
    difference: float
    how: str  # the test, or why there is none
    low: float | None = None
    high: float | None = None
    p: float | None = None
    corrected_p: float | None = None


def judge(a: Values, b: Values, images: int | None) -> Judged:
    """The test of one metric, whose p value still awaits :func:`correct`.

    Args:
        a, b: at least one value each.
        images: in the test set if the values are errors in %, else None.
    """
    difference = fmean(b.values()) - fmean(a.values())
    same = a.keys() == b.keys()
    if same and all(a[seed] == b[seed] for seed in a):
        return Judged(Change.EQUAL, 0.0, "equal to the last digit")
    if same and all(math.isclose(a[seed], b[seed], rel_tol=ROUNDING) for seed in a):
        return Judged(Change.NOISE, difference, "equal up to rounding")
    if same and len(a) > 1:
        pairs = [b[seed] - a[seed] for seed in a]
        if max(pairs) - min(pairs) > ROUNDING * max(map(abs, pairs)):
            return _t(stats.ttest_rel([b[s] for s in a], [a[s] for s in a]), difference, "paired t")
        if images is None:
            return Judged(Change.NOT_JUDGED, difference, "all seeds differ alike, which no test can judge")
    elif len(a) > 1 and len(b) > 1 and stdev(a.values()) + stdev(b.values()) > 0:
        test = stats.ttest_ind([*b.values()], [*a.values()], equal_var=False)
        return _t(test, difference, "Welch's t")
    elif len(a) != len(b) and max(_spread(a), _spread(b)) > 0:
        return _one_against_many(a, b, difference)
    if images is None:
        return Judged(Change.NOT_JUDGED, difference, "one seed a side has no spread to judge by")
    return _proportions(a, b, images, difference)


def correct(tests: Sequence[Judged]) -> list[Judged]:
    """Holm's correction over all tests, and what follows from it."""
    with_p = [index for index, test in enumerate(tests) if test.p is not None]
    if not with_p:
        return [*tests]
    corrected = multipletests([tests[index].p for index in with_p], ALPHA, method="holm")[1]
    found = [*tests]
    for index, p in zip(with_p, corrected, strict=True):
        change = Change.NOISE
        if p <= ALPHA:
            change = Change.WORSE if tests[index].difference > 0 else Change.BETTER
        found[index] = replace(tests[index], change=change, corrected_p=float(p))
    return found


def _spread(values: Values) -> float:
    return stdev(values.values()) if len(values) > 1 else 0.0


def _t(test: Any, difference: float, how: str) -> Judged:
    interval = test.confidence_interval(1 - ALPHA)
    p = float(test.pvalue)
    return Judged(Change.NOISE, difference, how, float(interval.low), float(interval.high), p)


def _one_against_many(a: Values, b: Values, difference: float) -> Judged:
    """Student's t test, whose common spread is that of the side with several seeds."""
    shapes = [(fmean(side.values()), _spread(side), len(side)) for side in (b, a)]
    test = stats.ttest_ind_from_stats(*shapes[0], *shapes[1], equal_var=True)
    many = max(len(a), len(b))
    error = max(_spread(a), _spread(b)) * math.sqrt(1 + 1 / many)
    half = float(stats.t.ppf(1 - ALPHA / 2, many - 1)) * error
    how = "Student's t, spread of the side with several seeds"
    return Judged(Change.NOISE, difference, how, difference - half, difference + half, float(test.pvalue))


def _proportions(a: Values, b: Values, images: int, difference: float) -> Judged:
    wrong = [round(sum(side.values()) / 100 * images) for side in (b, a)]
    number = [images * len(side) for side in (b, a)]
    test = test_proportions_2indep(wrong[0], number[0], wrong[1], number[1], method="agresti-caffo")
    low, high = confint_proportions_2indep(
        wrong[0], number[0], wrong[1], number[1], method="agresti-caffo", alpha=ALPHA
    )
    how = f"two proportions of {images} test images"
    return Judged(Change.NOISE, difference, how, 100 * float(low), 100 * float(high), float(test.pvalue))
