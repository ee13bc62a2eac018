"""The golden reports: made-up cards, some diverged and some missing, and the text they must give.

Run this file to write the golden texts anew, then read what changed:
``PYTHONPATH=. python tests/benchmarks/reports/golden_report.py``
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fake_cards import fake_cards

from benchmarks.reports.evidence import Evidence, gather
from benchmarks.reports.render import markdown
from benchmarks.tables.published import load_published
from benchmarks.tables.table import load_table

GOLDEN = Path(__file__).parent / "golden"
TABLE = load_table(GOLDEN / "table.yaml", "test/golden")
PUBLISHED = load_published(GOLDEN / "published.yaml")
SEEDS = (0, 1, 2)
COMMAND = "weightaug report test/golden"
DIVERGED = [("resnet", "sam", 1)]
MISSING = [("vit", "was", 2), *(("resnet", "was", seed) for seed in SEEDS)]
Cards = dict[tuple[str, str, int], Any]


def cards(scale: str) -> Cards:
    """The cards of the golden report at ``scale``."""
    if scale == "full":
        return fake_cards(TABLE, scale, SEEDS)
    return fake_cards(TABLE, scale, SEEDS, DIVERGED, MISSING)


def evidence(scale: str, of: Cards | None = None) -> Evidence:
    """The evidence in ``of``, or in the golden cards."""
    return gather(TABLE, scale, SEEDS, cards(scale) if of is None else of, PUBLISHED)


def text(scale: str, of: Cards | None = None) -> str:
    """The Markdown of the report on ``of``, or on the golden cards."""
    return markdown(evidence(scale, of), "test-golden", COMMAND)


if __name__ == "__main__":
    for name in TABLE.scales:
        (GOLDEN / f"{name}.md").write_text(text(name), encoding="utf-8")
