"""The statistics: against scipy and statsmodels, and by simulated experiments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from benchmarks.reports.verdicts import (
    ALPHA,
    POWER,
    MeanEstimate,
    Paired,
    Verdict,
    decide,
    decide_orderings,
    difference_from_published,
    equivalence,
    every,
    mean_of,
    most,
    orderings,
    paired,
    sampling_error,
)

SAMPLE = [1.02, 1.05, 0.98, 1.01]


def largest_share(rate: float, experiments: int) -> float:
    """The largest share that a rate may show in so many experiments, but for one time in 10,000."""
    return float(stats.binom.ppf(0.9999, experiments, rate)) / experiments


# --- one part of the error: the ordinary tests ---


@pytest.mark.parametrize("margin", [0.02, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("expected", [0.7, 0.9, 1.0, 1.1])
def test_ratio_is_statsmodels_equivalence_test(expected: float, margin: float) -> None:
    finding = equivalence(mean_of(SAMPLE), expected, margin)
    p = DescrStatsW(SAMPLE).ttost_mean(expected - margin, expected + margin)[0]
    assert (finding.verdict is Verdict.REPRODUCED) == (p <= ALPHA)
    low, high = DescrStatsW(SAMPLE).tconfint_mean(2 * ALPHA)
    assert (finding.low, finding.high) == pytest.approx((low, high))
    outside = low >= expected + margin or high <= expected - margin
    assert (finding.verdict is Verdict.DIFFERENT) == outside


def test_borrowed_spread_is_the_pooled_two_sample_test() -> None:
    """One published run with our variance: the t interval of a new observation."""
    estimate = difference_from_published([25.0, 25.2, 25.4], 25.0, None, 1)
    half = stats.t.ppf(0.95, 2) * 0.2 * math.sqrt(1 / 3 + 1)
    assert estimate.interval()[0] == pytest.approx(half)


def test_welch_parts() -> None:
    ours, paper = [25.0, 25.2, 25.4, 25.3], [24.0, 24.9, 25.1]
    estimate = difference_from_published(ours, np.mean(paper), np.std(paper, ddof=1), 3)
    welch = stats.ttest_ind(ours, paper, equal_var=False)
    _, error, freedom = estimate.interval()
    assert freedom == pytest.approx(welch.df)
    assert estimate.value / error == pytest.approx(welch.statistic)


def test_finite_test_set_has_the_binomial_variance() -> None:
    estimate = difference_from_published([25.0, 25.0], 25.0, None, 1, sampling_error(25.0, 10_000))
    half, error, _ = estimate.interval()
    assert error == pytest.approx(100 * math.sqrt(0.25 * 0.75 / 10_000))
    assert half == pytest.approx(1.6449 * error, rel=1e-4)


def test_orderings_are_scipy_and_holm() -> None:
    below, above = [1.0, 2.0, 3.0], [2.0, 2.9, 4.2]
    close, other = [1.0, 2.0, 3.0], [1.1, 1.9, 3.2]
    found = orderings([paired(below, above), paired(close, other)])
    ps = [stats.ttest_rel(a, b, alternative="less").pvalue for a, b in ((below, above), (close, other))]
    assert [f.p for f in found] == pytest.approx(ps)
    assert [f.corrected_p for f in found] == pytest.approx([2 * ps[0], ps[1]])
    assert [f.verdict for f in found] == [Verdict.REPRODUCED, Verdict.INCONCLUSIVE]
    assert orderings([paired(above, below)])[0].verdict is Verdict.DIFFERENT
    assert orderings([]) == []


def test_runs_that_do_not_differ_decide_nothing() -> None:
    finding = equivalence(mean_of([1.0, 1.0]), 1.0, 0.1)
    assert finding.verdict is Verdict.INCONCLUSIVE and "last digit" in finding.reason


# --- the seeds still needed ---


@pytest.mark.parametrize(("effect", "runs"), [(0.5, 3), (0.8, 3), (1.2, 2)])
def test_seeds_needed_reach_the_power(effect: float, runs: int) -> None:
    noise = np.linspace(-1, 1, runs)
    noise = noise / noise.std(ddof=1)
    finding = orderings([paired(list(noise - effect), [0.0] * runs)])[0]
    assert finding.more_seeds is not None
    total = runs + finding.more_seeds
    power = [TTestPower().power(effect, n, ALPHA, alternative="larger") for n in (total - 1, total)]
    assert power[0] < POWER <= power[1]


def test_no_number_of_seeds_beats_the_papers_own_uncertainty() -> None:
    finding = equivalence(
        difference_from_published([25.3, 25.4, 25.5], 25.0, 1.0, 3, sampling_error(25.0, 10_000)), 0.0, 0.5
    )
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert finding.more_seeds is None and "1000 seeds would not decide" in finding.reason


def test_seeds_needed_for_equivalence_decide_it() -> None:
    few = MeanEstimate(0.01, 0.1, 3)
    finding = equivalence(few, 0.0, 0.1)
    assert finding.verdict is Verdict.INCONCLUSIVE and finding.more_seeds is not None
    rng = np.random.default_rng(0)
    total, wins = 3 + finding.more_seeds, 0
    for _ in range(500):
        values = rng.normal(0.01, 0.1, total)
        wins += (
            decide(MeanEstimate(values.mean(), values.std(ddof=1), total), 0, 0.1).verdict
            is Verdict.REPRODUCED
        )
    assert 0.74 < wins / 500 < 0.9


# --- simulated experiments ---


def published_experiments(
    rng: np.random.Generator,
    truth: float,
    runs: int,
    paper_runs: int,
    spread: float,
    margin: float,
    count: int,
) -> dict[Verdict, float]:
    """Shares of the verdicts over ``count`` simulated comparisons, each side with its own test images."""
    images, error = 10_000, 25.0
    sampling = math.sqrt(error * (100 - error) / images)
    shares = dict.fromkeys(Verdict, 0.0)
    for _ in range(count):
        paper = rng.normal(error, spread, paper_runs)
        ours = rng.normal(error + truth + rng.normal(0, sampling), spread, runs)
        printed = float(paper.std(ddof=1)) if paper_runs > 1 else None
        estimate = difference_from_published(list(ours), float(paper.mean()), printed, paper_runs, sampling)
        shares[decide(estimate, 0.0, margin).verdict] += 1 / count
    return shares


@pytest.mark.parametrize("spread", [0.1, 0.5, 1.5])
@pytest.mark.parametrize(("runs", "paper_runs"), [(2, 1), (3, 1), (3, 3), (5, 3)])
def test_false_verdicts_on_numbers_are_rare(runs: int, paper_runs: int, spread: float) -> None:
    count, margin = 1000, 2.0
    rng = np.random.default_rng(runs * 100 + paper_runs * 10)
    at_the_margin = published_experiments(rng, margin, runs, paper_runs, spread, margin, count)
    # On the very edge both answers are false half of the time; each must stay within its level.
    assert at_the_margin[Verdict.REPRODUCED] <= largest_share(ALPHA, count)
    assert at_the_margin[Verdict.DIFFERENT] <= largest_share(ALPHA, count)
    same = published_experiments(rng, 0.0, runs, paper_runs, spread, margin, count)
    assert same[Verdict.DIFFERENT] <= largest_share(ALPHA, count)
    far = published_experiments(rng, 2 * margin, runs, paper_runs, spread, margin, count)
    assert far[Verdict.REPRODUCED] <= largest_share(ALPHA, count)


def test_true_verdicts_on_numbers_come_when_the_data_allow() -> None:
    rng = np.random.default_rng(1)
    same = published_experiments(rng, 0.0, 5, 3, 0.1, 2.0, 500)
    far = published_experiments(rng, 4.0, 5, 3, 0.1, 2.0, 500)
    assert same[Verdict.REPRODUCED] > 0.95 and far[Verdict.DIFFERENT] > 0.95


def ordering_experiments(means: list[float], runs: int, count: int) -> tuple[float, float]:
    """Shares of simulated tables with any false REPRODUCED, and with any false DIFFERENT."""
    rng = np.random.default_rng(7)
    lower, higher = rng.normal(size=(2, runs, count, len(means)))
    ps = stats.ttest_rel(lower + means, higher, alternative="less").pvalue
    reproduced = different = 0
    for row in ps:
        tests = [Paired(0.0, 1.0, runs, 0.0, 0.0, p, 1 - p) for p in row]
        verdicts = [finding.verdict for finding in decide_orderings(tests)]
        pairs = list(zip(means, verdicts, strict=True))
        reproduced += any(mean >= 0 and verdict is Verdict.REPRODUCED for mean, verdict in pairs)
        different += any(mean <= 0 and verdict is Verdict.DIFFERENT for mean, verdict in pairs)
    return reproduced / count, different / count


@pytest.mark.parametrize("runs", [3, 5])
@pytest.mark.parametrize("means", [[0.0] * 6, [-30.0, -30.0, 0.0, 0.0, 0.0, 30.0]])
def test_false_orderings_are_rare_in_a_whole_table(means: list[float], runs: int) -> None:
    count = 2000
    false_reproduced, false_different = ordering_experiments(means, runs, count)
    assert false_reproduced <= largest_share(ALPHA, count)
    assert false_different <= largest_share(ALPHA, count)


@pytest.mark.parametrize("shared", [0.0, 0.9])
@pytest.mark.parametrize("means", [[-30.0, -30.0, 0.0], [0.0, 0.0, 0.0], [30.0, -30.0, 0.0]])
def test_false_verdicts_on_several_comparisons_are_rare(means: list[float], shared: float) -> None:
    """However much the comparisons depend on each other (``shared``: part of the noise that is common)."""
    count, runs = 2000, 4
    rng = np.random.default_rng(11)
    reproduced = different = 0
    for _ in range(count):
        common = rng.normal(size=(runs, 1))
        noise = shared**0.5 * common + (1 - shared) ** 0.5 * rng.normal(size=(runs, len(means)))
        ps = stats.ttest_1samp(noise + means, 0, alternative="less").pvalue
        tests = [Paired(0.0, 1.0, runs, 0.0, 0.0, float(p), 1 - float(p)) for p in ps]
        verdict = decide_orderings([every(tests, ["a", "b", "c"])])[0].verdict
        reproduced += verdict is Verdict.REPRODUCED
        different += verdict is Verdict.DIFFERENT
    assert reproduced / count <= largest_share(ALPHA, count)  # one comparison at least does not hold
    if max(means) <= 0:
        assert different / count <= largest_share(ALPHA, count)  # none is the other way round
    else:
        assert different / count > 0.95


@pytest.mark.parametrize("shared", [0.0, 0.9])
@pytest.mark.parametrize("held", [0, 9, 10, 19])
def test_false_verdicts_on_most_of_many_comparisons_are_rare(held: int, shared: float) -> None:
    """19 comparisons of which ``held`` hold by far, the rest being ties at best."""
    count, runs, total = 500, 3, 19
    rng = np.random.default_rng(13)
    means = np.array([-30.0] * held + [0.0] * (total - held))
    verdicts = []
    for _ in range(count):
        common = rng.normal(size=(runs, 1))
        noise = shared**0.5 * common + (1 - shared) ** 0.5 * rng.normal(size=(runs, total))
        ps = stats.ttest_1samp(noise + means, 0, alternative="less").pvalue
        tests = [Paired(0.0, 1.0, runs, 0.0, 0.0, float(p), 1 - float(p)) for p in ps]
        verdicts.append(decide_orderings([most(tests, [str(i) for i in range(total)])])[0].verdict)
    reproduced, different = (verdicts.count(v) / count for v in (Verdict.REPRODUCED, Verdict.DIFFERENT))
    assert different <= largest_share(ALPHA, count)  # at no time are half of them the other way round
    if held < 10:
        assert reproduced <= largest_share(ALPHA, count)
    else:
        assert reproduced > (0.4 if held == 10 else 0.95)


# --- properties ---

errors = st.lists(st.floats(0, 100), min_size=2, max_size=6)


@given(errors, st.floats(1, 99), st.floats(0.01, 50))
def test_the_verdict_follows_the_interval(values: list[float], published: float, margin: float) -> None:
    finding = decide(
        difference_from_published(values, published, None, 1, sampling_error(published, 1000)), 0.0, margin
    )
    assert finding.low is not None and finding.high is not None
    inside = -margin <= finding.low and finding.high <= margin
    outside = finding.low >= margin or finding.high <= -margin
    if finding.verdict is Verdict.REPRODUCED:
        assert finding.low >= -margin - 1e-9 and finding.high <= margin + 1e-9
    elif finding.verdict is Verdict.DIFFERENT:
        assert finding.low >= margin - 1e-9 or finding.high <= -margin + 1e-9
    else:
        assert not inside and not outside


@given(errors, st.floats(1, 99), st.floats(-20, 20))
def test_the_verdict_does_not_depend_on_the_side(values: list[float], published: float, shift: float) -> None:
    estimate = difference_from_published(values, published, 0.3, 3, sampling_error(published, 1000))
    mirrored = MeanEstimate(
        -estimate.value, estimate.spread, estimate.runs, estimate.borrowing, estimate.fixed
    )
    assert decide(estimate, shift, 1.0).verdict is decide(mirrored, -shift, 1.0).verdict
