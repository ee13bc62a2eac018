"""A report's work grows no faster than its cards: calls are counted, because seconds tell little on a busy machine."""

from __future__ import annotations

import sys
from types import FrameType

from fake_cards import fake_cards
from golden_report import PUBLISHED, TABLE, command

from benchmarks.reports.evidence import gather
from benchmarks.reports.html import page
from benchmarks.reports.render import card_text, digest, markdown


def calls(seeds: int) -> int:
    """How many Python functions a report of so many seeds calls; plots left out."""
    of = fake_cards(TABLE, "smoke", range(seeds))
    counted = 0

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal counted
        counted += event == "call"

    sys.setprofile(count)
    try:
        evidence = gather(TABLE, "smoke", range(seeds), of, PUBLISHED)
        page(markdown(evidence, "slug", command("smoke"), digest(map(card_text, evidence.cards))))
    finally:
        sys.setprofile(None)
    return counted


def test_work_is_linear_in_the_cards() -> None:
    command("smoke")  # composed once, not counted
    calls(2)  # what is computed once and kept, such as templates and quantiles
    few, more, most = (calls(seeds) for seeds in (5, 15, 25))
    assert most - more < 1.3 * (more - few)
