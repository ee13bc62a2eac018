"""A finished cell whose evaluation left a metric out is not a cell that was not run."""

from __future__ import annotations

import copy
from pathlib import Path

from golden_report import MISSING, PUBLISHED, SEEDS, TABLE, Cards, cards, command, evidence, text

from benchmarks.reports.render import write_report
from benchmarks.reports.verdicts import Verdict


def without_corruptions(scale: str, of_seeds: tuple[int, ...] = SEEDS) -> Cards:
    """The golden cards as ``evaluation.corruptions=false`` leaves them."""
    stripped = copy.deepcopy(cards(scale))
    for (_, _, seed), card in stripped.items():
        if card and card["metrics"] and seed in of_seeds:
            for metrics in card["metrics"].values():
                metrics["corrupted"] = {}
    return stripped


def test_the_corrupted_columns_say_not_measured() -> None:
    found = evidence("full", without_corruptions("full"))
    numbers = [n for lines in found.lines.values() for line in lines for n in line.numbers]
    corrupted = [n for n in numbers if n.column.metric[0].startswith("corrupted")]
    assert corrupted
    for number in corrupted:
        assert number.finding.verdict is Verdict.INCONCLUSIVE
        assert number.finding.reason == "not measured"
        assert number.sample.unmeasured == SEEDS and not number.sample.missing
    assert all(n.finding.verdict is not Verdict.NOT_RUN for n in numbers)
    report = text("full", without_corruptions("full"))
    assert "NOT RUN" not in report
    assert "INCONCLUSIVE (not measured)" in report


def test_claims_on_what_was_not_measured() -> None:
    found = evidence("full", without_corruptions("full"))
    on_corrupted = [c for c in found.claims if c.claim.metrics[0].startswith("corrupted")]
    assert on_corrupted
    for claim in on_corrupted:
        assert (claim.finding.verdict, claim.finding.reason) == (Verdict.INCONCLUSIVE, "not measured")


def test_cells_that_were_not_run_are_still_told() -> None:
    found = evidence("smoke", without_corruptions("smoke"))
    panel, row, _ = MISSING[-1]
    line = next(line for line in found.lines[panel] if line.row.method == row)
    assert {number.finding.verdict for number in line.numbers} == {Verdict.NOT_RUN}


def test_one_seed_without_the_metric_is_noted() -> None:
    found = evidence("full", without_corruptions("full", of_seeds=(2,)))
    noted = [
        n for lines in found.lines.values() for line in lines for n in line.numbers if n.sample.unmeasured
    ]
    assert noted
    assert all(n.sample.unmeasured == (2,) for n in noted)
    judged = [n for n in noted if n.published and n.published.value is not None]
    assert judged and all("1 seed not measured" in n.finding.reason for n in judged)


def test_cards_that_lack_one_type_do_not_pass_for_whole_ones() -> None:
    """As frost is missing on a machine without its photographs: 18 types there, 19 elsewhere."""
    partly = copy.deepcopy(cards("full"))
    for (_, _, seed), card in partly.items():
        if card and card["metrics"] and seed == 2:
            for metrics in card["metrics"].values():
                metrics["corrupted"].pop("contrast", None)
    found = evidence("full", partly)
    numbers = [n for lines in found.lines.values() for line in lines for n in line.numbers]
    for number in numbers:
        if number.column.metric[0].startswith("corrupted"):
            assert number.sample.unmeasured == (2,) and 2 not in number.sample.values
    assert "contrast" in text("full", partly)


def test_the_report_with_its_plots_is_written(tmp_path: Path) -> None:
    of = without_corruptions("smoke")
    path = write_report(TABLE, "smoke", SEEDS, of, PUBLISHED, tmp_path, command("smoke"))
    assert "not measured" in path.read_text(encoding="utf-8")
    assert {plot.name for plot in tmp_path.rglob("*.png")} == {
        "curves.png",
        "cost.png",
    }  # none without its data
