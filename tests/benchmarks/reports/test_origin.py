"""Deviations that the cards themselves show, the head of the report, and which plots there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from golden_report import SEEDS, cards, evidence, text

from benchmarks.reports.headline import sentence, unknown
from benchmarks.reports.heat_maps import published_ratios
from benchmarks.reports.origin import deviations
from benchmarks.reports.plot_set import plots_of
from benchmarks.reports.run_plots import work


def notes(of: Any) -> str:
    return "\n".join(deviations(evidence("full", of)))


def test_what_every_golden_card_shows() -> None:
    told = notes(cards("full"))
    assert told.startswith("Nothing in this report was measured.")
    assert "generated here in all runs" in told
    assert "10 were left out: defocus blur, glass blur" in told and "frost" in told
    for absent in ("Precision", "BatchNorm", "interrupted", "uncommitted", "mixed", "seeds here"):
        assert absent not in told


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("cost", "resumed"), 2, "continued from a checkpoint in 1 of 15 runs."),
        (("provenance", "dirty"), True, "uncommitted changes in 1 of 15 runs"),
        (("provenance", "commit"), "fedcba", "Runs of 2 commits are mixed"),
        (("provenance", "device"), "cuda", "Runs of 2 kinds of device are mixed"),
        (("cell", "recipe", "precision"), "bf16", "Precision bf16 in 1 of 15 runs."),
        (
            ("cell", "evaluation", "batch_norm"),
            "reestimated",
            "estimated anew on training images before the test in 1",
        ),
        (("cell", "evaluation", "batch_norm"), "batch", "the statistics of each test batch in 1 of 15 runs."),
    ],
)
def test_what_one_card_shows(path: tuple[str, ...], value: object, told: str) -> None:
    of = cards("full")
    place = of["vit", "sgd", 0]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert told not in notes(cards("full")) and told in notes(of)


def test_published_images_are_no_deviation() -> None:
    of = cards("full")
    for card in of.values():
        card["corrupted_images"] = dict.fromkeys(card["metrics"]["plain"]["corrupted"], "published")
    assert "generated" not in notes(of)


def test_the_first_sentence() -> None:
    assert sentence(evidence("full")) == (
        "At full scale: 3 of 5 published numbers reproduced, 2 different; 1 of 2 ratios reproduced, 1 different; "
        "1 of 3 orderings hold, 1 contradicted, 1 inconclusive. 15 runs finished."
    )
    assert sentence(evidence("smoke")).startswith("At smoke scale: all 10 published numbers not comparable; ")
    assert text("full").splitlines()[2] == f"**{sentence(evidence('full'))}**"
    assert unknown(evidence("full"))[1].endswith("1 × a bar chart without numbers")


def test_error_against_work_needs_rows_that_differ_in_it(tmp_path: Path) -> None:
    of = cards("full")
    assert "work.png" not in {plot.file for plot in plots_of(evidence("full", of))}
    for seed in SEEDS:
        of["vit", "was-aom", seed]["cost"]["dom_saving_expected"] = 25.0
    found = evidence("full", of)
    macs = {line.row.name: work(line) for line in found.lines["vit"]}
    assert macs["was-dom"] == 0.75 * macs["was-aom"] == 0.75 * macs["sgd"]
    plot = next(plot for plot in plots_of(found) if plot.file == "work.png")
    plot.draw(found, tmp_path / plot.file)
    assert (tmp_path / plot.file).stat().st_size > 1000


def test_errors_are_no_ratios() -> None:
    assert not any(published_ratios(evidence("full"), "vit").values())
