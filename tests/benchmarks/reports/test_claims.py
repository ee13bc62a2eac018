"""Claims of every kind, columns made of others, and the tables' own claims on made-up cards."""

from __future__ import annotations

import copy
import doctest
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import yaml
from fake_cards import TYPES, fake_cards

from benchmarks.reports.claim_findings import ClaimFinding
from benchmarks.reports.evidence import Evidence, gather
from benchmarks.reports.verdicts import Verdict
from benchmarks.tables.reading import load_table

SEEDS = (0, 1, 2)
RAW: dict[str, Any] = yaml.safe_load("""
    title: A table
    description: for tests
    baseline: sgd
    columns:
      - {name: clean, label: Clean, metric: clean.error}
      - {name: noise, label: noise, metric: type.gaussian_noise.error, relative: true, unit: ratio}
      - {name: both, label: both, metric: [type.contrast.error, type.pixelate.error], relative: true, unit: ratio}
      - {name: mean, label: mean, mean_of: [noise, both], unit: ratio}
      - {name: spatter, label: spatter, metric: type.spatter.error}
      - {name: macs, label: MACs, metric: cost.macs, unit: count}
    rows:
      - {name: sgd, label: plain SGD, overrides: [method=sgd]}
      - {name: dropout, label: Dropout, overrides: [method=dropout]}
      - {name: damp, label: DAMP, overrides: [method=damp]}
      - {name: sam, label: SAM, overrides: [method=sam]}
    scales:
      full: {seeds: 3, panels: [{name: vit-a, label: A}, {name: vit-b, label: B}, {name: resnet-a, label: C}]}
      smoke:
        seeds: 3
        rows: [sgd, damp]
        columns: [clean, noise]
        stand_ins: {clean.error: corrupted.error}
        panels: [{name: vit-a, label: A}]
""")


def findings(
    claim: dict[str, Any], change: Callable[[dict[Any, Any]], None] | None = None
) -> list[ClaimFinding]:
    return list(evidence({"name": "c", "text": "t", "source": "s", **claim}, change).claims)


def evidence(
    claim: dict[str, Any] | None = None, change: Callable[[dict[Any, Any]], None] | None = None
) -> Evidence:
    table = load_table({**copy.deepcopy(RAW), "claims": [claim] if claim else []}, "t")
    cards = fake_cards(table, "full", SEEDS)
    if change:
        change(cards)
    return gather(table, "full", SEEDS, cards, None)


def error(cards: dict[Any, Any], panel: str, row: str, seed: int, name: str = "") -> Any:
    metrics = cards[panel, row, seed]["metrics"]["plain"]
    return fmean(metrics["corrupted"][name]["error"]) if name else metrics["clean"]["error"]


# --- columns ---


def test_relative_columns_are_ratios_by_seed_and_means_are_plain() -> None:
    found: dict[Any, Any] = {}
    here = evidence(change=found.update)
    line = next(line for line in here.lines["vit-a"] if line.row.name == "damp")
    numbers = {number.column.name: number.sample.values for number in line.numbers}
    for seed in SEEDS:

        def ratio(*names: str, seed: int = seed) -> float:
            ours, base = (
                fmean(error(found, "vit-a", row, seed, name) for name in names) for row in ("damp", "sgd")
            )
            return ours / base

        assert numbers["noise"][seed] == pytest.approx(ratio("gaussian_noise"))
        assert numbers["both"][seed] == pytest.approx(ratio("contrast", "pixelate"))
        assert numbers["mean"][seed] == pytest.approx((numbers["noise"][seed] + numbers["both"][seed]) / 2)
    assert not numbers["spatter"]
    base = next(line for line in here.lines["vit-a"] if line.row.name == "sgd")
    assert set(base.numbers[1].sample.values.values()) == {1.0}


def test_a_diverged_run_is_counted_in_a_ratio() -> None:
    def diverge(cards: dict[Any, Any]) -> None:
        cards["vit-a", "damp", 1].update(status="diverged", metrics=None)

    found: dict[Any, Any] = {}
    here = evidence(change=lambda cards: (diverge(cards), found.update(cards))[0])
    sample = next(line for line in here.lines["vit-a"] if line.row.name == "damp").numbers[1].sample
    assert sample.diverged == (1,) and 1 not in sample.values
    assert sample.counted[1] == pytest.approx(100 / error(found, "vit-a", "sgd", 1, "gaussian_noise"))


def test_a_scale_has_its_own_rows_columns_metrics_and_the_claims_on_them() -> None:
    kinds = [
        {"name": "on-noise", "kind": "ordering", "metric": ["column.noise", "column.mean"], "lower": "damp",
         "higher": "sgd"},
        {"name": "on-mean", "kind": "ordering", "metric": "column.mean", "lower": "damp", "higher": "sgd"},
        {"name": "on-sam", "kind": "ordering", "metric": "clean.error", "lower": "damp", "higher": "sam"},
        {"name": "on-clean", "kind": "ratio", "metric": "clean.error", "numerator": "damp", "denominator": "sgd",
         "expected": 1.0, "margin": 0.1},
    ]  # fmt: skip
    claims = [{"text": "t", "source": "s", **kind} for kind in kinds]
    table = load_table({**copy.deepcopy(RAW), "claims": claims}, "t").at("smoke")
    assert [row.name for row in table.rows] == ["sgd", "damp"]
    assert [column.metric for column in table.columns] == [
        ("corrupted.error",),
        ("type.gaussian_noise.error",),
    ]
    assert {claim.name: claim.metrics for claim in table.claims} == {
        "on-noise": ("column.noise",),
        "on-clean": ("corrupted.error",),
    }


# --- orderings of several comparisons ---

SEVERITIES = [f"severity.{s}.error" for s in range(1, 6)]
EVERY = {"kind": "ordering", "metric": SEVERITIES, "lower": "damp", "higher": "dropout"}


def test_every_comparison_must_hold() -> None:
    found = findings(EVERY)
    assert [f.finding.verdict for f in found] == [Verdict.REPRODUCED] * 3
    assert "weakest of 5 comparisons" in found[0].finding.reason
    alone = [findings({**EVERY, "metric": metric})[0].finding.p or 0.0 for metric in SEVERITIES]
    assert found[0].finding.p == max(alone)

    def spoil(cards: dict[Any, Any]) -> None:  # at severity 3 DAMP is far worse
        for seed in SEEDS:
            for values in cards["vit-a", "damp", seed]["metrics"]["plain"]["corrupted"].values():
                values["error"][2] = 90.0 + seed / 10

    spoilt = findings(EVERY, spoil)
    assert [f.finding.verdict for f in spoilt] == [Verdict.DIFFERENT, Verdict.REPRODUCED, Verdict.REPRODUCED]
    assert "severity.3.error" in spoilt[0].finding.reason


def test_best_of_several_rows() -> None:
    best = {
        "kind": "ordering",
        "metric": "corrupted.error",
        "lower": "damp",
        "higher": ["sgd", "dropout", "sam"],
    }
    found = findings(best)
    assert [f.finding.verdict for f in found] == [Verdict.REPRODUCED] * 3
    assert "SAM" in found[0].finding.reason  # the closest rival
    assert (
        findings({**best, "lower": "sam", "higher": ["sgd", "damp"]})[0].finding.verdict is Verdict.DIFFERENT
    )


def test_most_types() -> None:
    claim = {"kind": "ordering", "metric": "type.*.error", "lower": "damp", "higher": "sgd", "most": True}
    always = findings(claim)[0]
    assert always.finding.verdict is Verdict.REPRODUCED
    assert "number 3 of 4 comparisons" in always.finding.reason

    def lose(*names: str) -> Callable[[dict[Any, Any]], None]:
        def change(cards: dict[Any, Any]) -> None:
            for seed in SEEDS:
                of = cards["vit-a", "damp", seed]["metrics"]["plain"]["corrupted"]
                for name in names:
                    of[name]["error"] = [90.0 + seed / 10] * 5

        return change

    assert findings(claim, lose("contrast"))[0].finding.verdict is Verdict.REPRODUCED  # three of four
    half = findings(claim, lose("contrast", "pixelate"))[0]
    assert half.finding.verdict is Verdict.DIFFERENT  # half are the other way round: not most
    assert findings(claim, lose(*TYPES))[0].finding.verdict is Verdict.DIFFERENT
    assert len(TYPES) == 4


def test_claims_without_cards_are_not_run() -> None:
    def forget(cards: dict[Any, Any]) -> None:
        for place in cards:
            cards[place] = cards[place] if place[0] != "vit-a" else None

    most = {"kind": "ordering", "metric": "type.*.error", "lower": "damp", "higher": "sgd", "most": True}
    number = {"kind": "number", "metric": "clean.error", "row": "sgd", "minus": "damp", "expected": 1.0,
              "margin": 0.5, "over": "mean"}  # fmt: skip
    for claim in (EVERY, most):
        assert findings(claim, forget)[0].finding.verdict is Verdict.NOT_RUN
    assert [f.finding.verdict for f in findings(number, forget)] == [Verdict.NOT_RUN]
    assert findings({**EVERY, "metric": "type.spatter.error"})[0].finding.reason == "not measured"


# --- stated numbers ---

GAIN = {
    "kind": "number",
    "metric": "clean.error",
    "row": "sgd",
    "minus": "damp",
    "over": "mean",
    "margin": 0.5,
}


def gains(cards: dict[Any, Any], panels: list[str]) -> list[list[float]]:
    """By seed, then by panel."""
    return [[error(cards, p, "sgd", s) - error(cards, p, "damp", s) for p in panels] for s in SEEDS]


def test_a_gain_over_networks() -> None:
    cards: dict[Any, Any] = {}
    evidence(change=cards.update)
    by_seed = gains(cards, ["vit-a", "vit-b"])
    mean, highest = fmean(map(fmean, by_seed)), fmean(map(max, by_seed))
    for over, expected in (("mean", mean), ("highest", highest)):
        (found,) = findings({**GAIN, "over": over, "panels": ["vit-*"], "expected": expected, "margin": 5.0})
        assert found.panel is None
        assert found.finding.estimate == pytest.approx(expected)
        assert found.finding.verdict is Verdict.REPRODUCED
    (far,) = findings({**GAIN, "panels": ["vit-*"], "expected": mean + 30})
    assert far.finding.verdict is Verdict.DIFFERENT
    each = findings({**GAIN, "over": "each", "expected": 0.0})
    assert [f.panel.name for f in each if f.panel] == ["vit-a", "vit-b", "resnet-a"]
    (other,) = findings({**GAIN, "expected": mean, "margin": 5.0, "mismatch": "tested another way"})
    assert other.finding.verdict is Verdict.PROTOCOL_MISMATCH and other.finding.reason == "tested another way"


def test_a_count_is_decided_by_one_run() -> None:
    def one_seed(cards: dict[Any, Any]) -> None:
        for place in cards:
            cards[place] = cards[place] if place[2] == 0 else None

    count = {
        "kind": "number",
        "metric": "cost.macs",
        "row": "sgd",
        "unit": "count",
        "margin": 1.0,
        "over": "highest",
    }
    verdicts = [
        findings({**count, "expected": n}, one_seed)[0].finding.verdict for n in (1_200_000.0, 1_200_002.0)
    ]
    assert verdicts == [Verdict.REPRODUCED, Verdict.DIFFERENT]

    def unequal(cards: dict[Any, Any]) -> None:
        cards["resnet-a", "sgd", 1]["cost"]["macs"] = 5_000_000

    (found,) = findings({**count, "expected": 1_200_000.0}, unequal)
    assert (
        found.finding.verdict is Verdict.INCONCLUSIVE and "differ between the seeds" in found.finding.reason
    )


# --- costs ---

COSTS = {"kind": "ratio", "metric": "cost.training_seconds", "numerator": "sam", "denominator": "sgd",
         "expected": 2.0, "margin": 0.2}  # fmt: skip


def test_times_are_compared_on_one_machine_only() -> None:
    def elsewhere(cards: dict[Any, Any]) -> None:
        for seed in SEEDS:
            cards["vit-a", "sam", seed]["provenance"]["hardware"] = {"processor": "another", "cores": 64}

    here, there = findings(COSTS), findings(COSTS, elsewhere)
    assert here[0].finding.verdict is Verdict.REPRODUCED
    assert there[0].finding.verdict is Verdict.PROTOCOL_MISMATCH
    assert there[0].finding.reason == "timed on different machines"
    assert there[1].finding.verdict is here[1].finding.verdict


def test_a_run_that_diverged_early_was_not_cheap() -> None:
    def diverge(cards: dict[Any, Any]) -> None:
        for seed in SEEDS:
            cards["vit-a", "sam", seed].update(status="diverged", metrics=None)
            cards["vit-a", "sam", seed]["cost"]["training_seconds"] = 0.01

    assert findings(COSTS, diverge)[0].finding.verdict is Verdict.INCONCLUSIVE


# --- the page of rules ---


def test_the_examples_of_the_page_of_rules_are_true() -> None:
    page = Path(__file__).parents[3] / "docs" / "verdicts.md"
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert tried > 10 and not failed
