"""The search over draws: never above its budget, as good as what can be known, always the same."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.cost.dom_savings import DomCost, ShadowLayer
from benchmarks.cost.draw_search import Draws, DrawSearch, Score, check_budget
from benchmarks.errors import UserError
from weightaug.kernel_draws import Draw, Shift
from weightaug.kernel_transforms import RandomShift

OPTIONS: list[Draw] = [Shift(0, 0), *(d for d in RandomShift(0.3).outcomes((3, 3)) if d != Shift(0, 0))]


@st.composite
def problems(draw: st.DrawFn) -> tuple[DomCost, dict[Draw, list[int]], int]:
    """Layers of random cost, and for every draw what it adds to the errors, layer by layer."""
    macs = draw(st.lists(st.integers(1, 50).map(lambda n: 9 * n), min_size=1, max_size=4))
    rest = draw(st.integers(0, 500))
    layers = {f"layer{i}": ShadowLayer((3, 3), count, True) for i, count in enumerate(macs)}
    added = {option: draw(st.lists(st.integers(-3, 9), min_size=4, max_size=4)) for option in OPTIONS}
    return DomCost(sum(macs) + rest, sum(macs), layers), added, draw(st.integers(0, 2))


class Judge:
    """Scores draws by a rule, with as much interplay between neighbours as asked for; counts what it is asked."""

    def __init__(self, added: dict[Draw, list[int]], interplay: int) -> None:
        self.added, self.interplay = added, interplay
        self.asked: list[tuple[Draw, ...]] = []

    def __call__(self, draws: Draws) -> Score:
        self.asked.append(tuple(draws.values()))
        loss = sum(self.added[draw][i] for i, draw in enumerate(draws.values()))
        loss += self.interplay * sum(a == b for a, b in itertools.pairwise(draws.values()))
        return Score(loss, loss // 4)


@settings(max_examples=80, deadline=None)
@given(problems(), st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_budgets_hold_and_results_repeat(
    problem: tuple[DomCost, dict[Draw, list[int]], int], shares: list[float]
) -> None:
    cost, added, interplay = problem
    candidates = dict.fromkeys(cost.layers, OPTIONS)
    least = cost.share(dict.fromkeys(cost.layers, Shift(1, 1)))
    budgets = sorted(least + share * (1 - least) for share in shares)
    judge, again = Judge(added, interplay), Judge(added, interplay)
    search, repeated = (DrawSearch(cost, candidates, each, sweeps=50) for each in (judge, again))
    scores = []
    for budget in budgets:
        best = search.best(budget)
        assert cost.macs_with(best.draws) == best.macs <= budget * cost.macs * (1 + 1e-12)
        assert cost.share(best.draws) <= budget
        assert best.score == Judge(added, interplay)(best.draws)
        assert repeated.best(budget) == best
        # no single change that the budget allows is better, once the sweeps have come to rest
        if interplay == 0:
            for name, option in itertools.product(cost.layers, OPTIONS):
                changed = {**best.draws, name: option}
                if cost.share(changed) <= budget:
                    assert best.score <= Judge(added, 0)(changed)
        scores.append(best.score)
    assert scores == sorted(scores, reverse=True)  # more may be spent, so it gets no worse
    assert judge.asked == again.asked
    assert len(set(judge.asked)) == len(judge.asked) == search.scored  # nothing is measured twice


def test_finds_the_best_where_it_can_be_known() -> None:
    """Two layers that add up: the search meets what trying all pairs gives."""
    cost = DomCost(200, 180, {"a": ShadowLayer((3, 3), 90, True), "b": ShadowLayer((3, 3), 90, True)})
    added = {option: [n % 5, (3 * n) % 7, 0, 0] for n, option in enumerate(OPTIONS)}
    added[OPTIONS[0]] = [0, 0, 0, 0]
    judge = Judge(added, 0)
    for budget in (0.5, 0.55, 0.7, 0.85, 1.0):
        pairs = [{"a": a, "b": b} for a, b in itertools.product(OPTIONS, OPTIONS)]
        best = min(judge(pair) for pair in pairs if cost.share(pair) <= budget)
        assert DrawSearch(cost, dict.fromkeys(cost.layers, OPTIONS), judge).best(budget).score == best


@pytest.mark.parametrize("budget", [-0.1, 1.01, float("nan")])
def test_a_budget_is_a_share(budget: float) -> None:
    cost = DomCost(100, 90, {"a": ShadowLayer((3, 3), 90, True)})
    with pytest.raises(UserError, match=r"is no share of the network's FLOPs; use 0 to 1, e\.g\. 0\.8"):
        check_budget(cost, {"a": OPTIONS}, budget)


def test_a_budget_that_nothing_meets() -> None:
    cost = DomCost(100, 90, {"a": ShadowLayer((3, 3), 90, True)})
    message = r"no draws cost as little as 0\.4 .* the least is 0\.5000; raise the budget"
    with pytest.raises(UserError, match=message):
        DrawSearch(cost, {"a": OPTIONS}, Judge({}, 0)).best(0.4)
    check_budget(cost, {"a": OPTIONS}, 0.5)
