"""A report's work grows no faster than its cards: calls are counted, because seconds tell little on a busy machine."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

from fake_cards import fake_cards
from golden_report import PUBLISHED, TABLE, command

from benchmarks.reports.evidence import gather
from benchmarks.reports.html import page
from benchmarks.reports.plot_set import plots_of
from benchmarks.reports.render import markdown


def calls(seeds: int, folder: Path) -> int:
    """How many Python functions a report of so many seeds calls, with one of its plots."""
    of = fake_cards(TABLE, "smoke", range(seeds))
    counted = 0

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal counted
        counted += event == "call"

    sys.setprofile(count)
    try:
        evidence = gather(TABLE, "smoke", range(seeds), of, PUBLISHED)
        page(markdown(evidence, "slug", command("smoke")))
        curves = next(plot for plot in plots_of(evidence) if plot.file == "curves.png")
        curves.draw(evidence, folder / curves.file)
    finally:
        sys.setprofile(None)
    return counted


def test_work_is_linear_in_the_cards(tmp_path: Path) -> None:
    command("smoke")  # composed once, not counted
    calls(4, tmp_path)  # caches fill
    few, more, most = (calls(seeds, tmp_path) for seeds in (8, 40, 72))
    assert most - more < 1.3 * (more - few)
