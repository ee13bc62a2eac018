"""Aggregates over corruptions against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_cards import fake_card

from benchmarks.errors import UserError
from benchmarks.reports import aggregates
from benchmarks.reports.aggregates import EXTRA, STANDARD
from benchmarks.reports.measures import check_metric, measure

NINETEEN = (*STANDARD, *EXTRA)


def metrics(seed: int, types: tuple[str, ...] = NINETEEN) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    corrupted = {name: {"error": list(draw.uniform(5, 90, 5))} for name in types}
    return {"clean": {"error": float(draw.uniform(3, 5))}, "corrupted": corrupted}


def grid(of: dict[str, Any], types: tuple[str, ...]) -> np.ndarray:
    return np.array([of["corrupted"][name]["error"] for name in types])


def by_type(of: dict[str, Any]) -> dict[str, float]:
    """The clean error, and the mean over severities of each type."""
    return {"clean": of["clean"]["error"]} | {name: grid(of, (name,)).mean() for name in of["corrupted"]}


def test_fifteen_and_four_types() -> None:
    assert len(set(STANDARD)) == 15 and len(set(NINETEEN)) == 19


@pytest.mark.parametrize("types", [STANDARD, NINETEEN, ("fog",)])
def test_means(types: tuple[str, ...]) -> None:
    of = metrics(0)
    assert aggregates.mean(of, types=types) == pytest.approx(grid(of, types).mean())
    assert aggregates.by_severity(of, types=types) == pytest.approx(list(grid(of, types).mean(0)))
    assert aggregates.mean(of) == pytest.approx(grid(of, NINETEEN).mean())


def test_a_mean_over_types_that_are_not_all_there_is_none() -> None:
    fifteen = metrics(0, STANDARD)
    assert aggregates.mean(fifteen, types=STANDARD) == aggregates.mean(fifteen)
    assert aggregates.mean(fifteen, types=NINETEEN) is None
    assert aggregates.by_severity(metrics(0, ())) is None


def test_corruption_errors_are_ratios_of_sums() -> None:
    ours, baseline = metrics(1), metrics(2)
    ratios = aggregates.corruption_errors(by_type(ours), by_type(baseline))
    for name in NINETEEN:
        sums = [grid(of, (name,)).sum() for of in (ours, baseline)]
        assert ratios[name] == pytest.approx(sums[0] / sums[1])
    assert ratios["clean"] == pytest.approx(ours["clean"]["error"] / baseline["clean"]["error"])
    over = [ratios[name] for name in STANDARD]
    assert aggregates.mean_corruption_error(ratios, STANDARD) == pytest.approx(np.mean(over))
    assert aggregates.mean_corruption_error(ratios) == pytest.approx(np.mean([ratios[n] for n in NINETEEN]))
    with_clean = aggregates.mean_corruption_error(ratios, STANDARD, clean=True)
    assert with_clean == pytest.approx(np.mean([*over, ratios["clean"]]))
    itself = aggregates.corruption_errors(by_type(ours), by_type(ours))
    assert set(itself.values()) == {1.0}


def test_what_divides_by_zero_is_left_out() -> None:
    assert aggregates.corruption_errors({"fog": 1.0, "snow": 2.0}, {"fog": 0.0, "snow": 4.0}) == {"snow": 0.5}
    with pytest.raises(UserError, match="unknown corruption type 'fog'"):
        aggregates.mean_corruption_error({"snow": 0.5}, ("fog",))


def test_the_averages_of_the_papers_heat_map() -> None:
    """DAMP paper, figure 3, first row: the printed Avg is the mean of the 16 columns, `none` (1.01) included."""
    row = (0.81, 0.85, 0.87, 0.88, 0.80, 0.81, 0.97, 0.90, 0.93, 0.94, 0.95, 0.82, 0.90, 0.89, 0.90)
    ratios = dict(zip(STANDARD, row, strict=True)) | {"clean": 1.01}
    assert round(aggregates.mean_corruption_error(ratios, STANDARD, clean=True), 2) == 0.89


def test_metric_paths() -> None:
    card = fake_card("vit", "sam", 0)
    card["metrics"]["plain"]["corrupted"] = metrics(3)["corrupted"]
    assert measure(card, "corrupted15.error") == aggregates.mean(card["metrics"]["plain"], types=STANDARD)
    assert measure(card, "corrupted19.error") == measure(card, "corrupted.error")
    del card["metrics"]["plain"]["corrupted"]["saturate"]
    assert measure(card, "corrupted19.error") is None
    assert measure(card, "attack.fgsm.error") is None
    card["metrics"]["plain"]["attacks"] = {"fgsm": {"n": 360, "error": 90.7, "epsilon": 2 / 224}}
    assert measure(card, "attack.fgsm.error") == 90.7
    for path in ("corrupted15.error", "attack.fgsm.nll", "attack.pgd.ece"):
        check_metric(path, "here")
    with pytest.raises(UserError, match="did you mean 'fgsm'"):
        check_metric("attack.fgms.error", "here")
