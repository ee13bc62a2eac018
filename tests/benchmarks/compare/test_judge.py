"""The tests behind a comparison: how often they cry wolf, and that they see what is there."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.compare.judge import ALPHA, Change, correct, judge

IMAGES = 540


def sides(
    rng: np.random.Generator, shift: float, a: range, b: range
) -> tuple[dict[int, float], dict[int, float]]:
    """Errors in % of whole test images; equal seeds share a part of their luck, as paired runs do."""
    luck = {seed: rng.normal(0, 0.5) for seed in {*a, *b}}

    def draw(level: float, seed: int) -> float:
        share = np.clip((level + luck[seed] + rng.normal(0, 0.5)) / 100, 0, 1)
        return 100 * rng.binomial(IMAGES, share) / IMAGES

    return {seed: draw(8.0, seed) for seed in a}, {seed: draw(8.0 + shift, seed) for seed in b}


@pytest.mark.parametrize(("a", "b"), [(3, range(3)), (4, range(10, 14)), (10, range(1)), (2, range(2))])
def test_false_alarms_stay_within_the_nominal_rate(a: int, b: range) -> None:
    rng, alarms, times = np.random.default_rng(0), 0, 150
    for _ in range(times):
        found = correct([judge(*sides(rng, 0.0, range(a), b), IMAGES) for _ in range(4)])
        alarms += any(test.change in (Change.WORSE, Change.BETTER) for test in found)
    assert alarms <= times * ALPHA + 3 * (times * ALPHA * (1 - ALPHA)) ** 0.5


def test_a_large_change_is_seen_among_many_that_are_none() -> None:
    rng = np.random.default_rng(1)
    tests = [judge(*sides(rng, shift, range(10), range(10)), IMAGES) for shift in (6.0, *[0.0] * 19)]
    found = [test.change for test in correct(tests)]
    assert found[0] is Change.WORSE
    assert Change.WORSE not in found[1:]


def test_the_interval_holds_the_true_difference() -> None:
    rng, held, times = np.random.default_rng(2), 0, 200
    for _ in range(times):
        test = judge(*sides(rng, 2.0, range(5), range(5)), IMAGES)
        held += test.low is not None and test.high is not None and test.low <= 2.0 <= test.high
    assert held >= 0.9 * times
