"""Metric paths against plain numpy."""

from __future__ import annotations

from statistics import fmean

import numpy as np
import pytest
from fake_cards import fake_card

from benchmarks.errors import UserError
from benchmarks.reports.measures import check_metric, measure, unmeasured_types, worst
from benchmarks.results.card import MEASURED


@pytest.mark.parametrize("mode", ["plain", "shadow"])
@pytest.mark.parametrize("key", MEASURED)
def test_means_are_unweighted(mode: str, key: str) -> None:
    card = fake_card("vit", "was", 0)
    of_mode = card["metrics"][mode]
    grid = np.array([values[key] for values in of_mode["corrupted"].values()])
    assert measure(card, f"clean.{key}", mode) == of_mode["clean"][key]
    assert measure(card, f"severity.0.{key}", mode) == of_mode["clean"][key]
    assert measure(card, f"corrupted.{key}", mode) == pytest.approx(grid.mean())
    for severity in range(1, 6):
        assert measure(card, f"severity.{severity}.{key}", mode) == pytest.approx(
            grid[:, severity - 1].mean()
        )
    for name, values in zip(of_mode["corrupted"], grid, strict=True):
        assert measure(card, f"type.{name}.{key}", mode) == pytest.approx(values.mean())


def test_costs_also_of_a_diverged_run() -> None:
    card = fake_card("vit", "sam", 1, diverged=True)
    assert measure(card, "cost.seconds_per_epoch") == card["cost"]["seconds_per_epoch"]
    assert measure(card, "clean.error") is None
    card["cost"]["peak_memory_bytes"] = None
    assert measure(card, "cost.peak_memory_bytes") is None


def test_unknown_mode_and_type_are_named() -> None:
    card = fake_card("vit", "sam", 1)
    with pytest.raises(UserError, match=r"unknown inference mode of card .*'shadow'"):
        measure(card, "clean.error", "shadow")
    with pytest.raises(UserError, match="did you mean 'contrast'"):
        check_metric("type.contrsat.error", "a table")
    assert measure(card, "type.spatter.error") is None  # a type that was left out


def test_a_range_of_severities_has_levels_of_equal_weight() -> None:
    card = fake_card("vit", "sam", 1)
    levels = [measure(card, f"severity.{s}.error") or 0.0 for s in range(6)]
    assert measure(card, "severity.1-3.error") == pytest.approx(fmean(levels[1:4]))
    assert measure(card, "severity.0-5.error") == pytest.approx(fmean(levels))
    for wrong in ("3-1", "1-6", "-2", "1-"):
        with pytest.raises(UserError, match="or a range such as 1-3"):
            check_metric(f"severity.{wrong}.error", "a table")


def test_a_mean_over_fewer_types_than_the_config_has_is_none() -> None:
    card = fake_card("vit", "was", 0)
    for metrics in card["metrics"].values():
        del metrics["corrupted"]["contrast"]  # as frost, where its photographs are not installed
    assert unmeasured_types(card) == ["contrast"]
    for path in ("corrupted.error", "severity.3.error", "type.contrast.error"):
        assert measure(card, path) is None
    assert measure(card, "severity.0.error") == measure(card, "clean.error")
    assert measure(card, "type.pixelate.error") is not None
    del card["cell"]["dataset"]["corruptions"]["contrast"]  # another cell, whose config has three types
    assert measure(card, "corrupted.error") is not None


def test_worst_values() -> None:
    assert worst("corrupted.error") == 100 and worst("severity.3.top3_error") == 100
    assert worst("clean.ece") == 1
    assert worst("clean.nll") is None and worst("cost.seconds_per_epoch") is None


def test_the_official_error_is_that_of_the_best_epoch() -> None:
    card = fake_card("vit", "was", 0)
    assert measure(card, "official.error", "shadow") is None
    for entry, error in zip(card["curve"], (9.0, 3.0, 5.0, 4.0), strict=True):
        entry["official_shadow_error"] = error
    assert measure(card, "official.error", "shadow") == 3.0
    assert measure(card, "official.error", "plain") is None
    check_metric("official.error", "here")
    with pytest.raises(UserError, match=r"unknown metric in here: 'official\.nll'"):
        check_metric("official.nll", "here")


def test_sets_of_shifted_images() -> None:
    card = fake_card("vit", "was", 0)
    assert measure(card, "shifted.imagenet_a.error") is None
    few = {"n": 10, "error": 70.0, "top3_error": 30.0}
    card["metrics"]["plain"]["shifted"] = {"imagenet_d.texture": few, "imagenet_sketch": {**few, "nll": 2.5}}
    assert measure(card, "shifted.imagenet_d.texture.error") == 70.0
    assert measure(card, "shifted.imagenet_d.texture.nll") is None
    assert measure(card, "shifted.imagenet_sketch.nll") == 2.5
    assert measure(card, "shifted.imagenet_d.texture.error", "shadow") is None
    assert worst("shifted.imagenet_d.texture.top3_error") == 100
    for path in ("shifted.imagenet_a.error", "shifted.imagenet_d.material.ece"):
        check_metric(path, "here")
    with pytest.raises(UserError, match=r"did you mean 'imagenet_d.texture'"):
        check_metric("shifted.imagenet_d.textur.error", "here")
    with pytest.raises(UserError, match="unknown set of shifted images"):  # its parts are not combined
        check_metric("shifted.imagenet_d.error", "here")
    with pytest.raises(UserError, match="needs 3 parts"):
        check_metric("shifted.error", "here")
