"""How long a report takes, after imports: over 1,000 cards at most 2 s on an idle core, and in linear time beyond.

Run: ``pytest benchmarks/speed/test_report_time.py``. The cards are made up, by the generator of the tests of reports.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "benchmarks" / "reports")]

from fake_cards import fake_cards  # noqa: E402
from golden_report import PUBLISHED, TABLE  # noqa: E402

from benchmarks.reports.render import write_report  # noqa: E402

CELLS_PER_SEED = 10


@pytest.mark.parametrize("number", [100, 1_000, 10_000])
def test_report(number: int, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    seeds = range(number // CELLS_PER_SEED)
    cards = fake_cards(TABLE, "smoke", seeds)
    benchmark.extra_info["cards"] = len({card["id"] for card in cards.values()})
    benchmark.pedantic(
        write_report,
        (TABLE, "smoke", seeds, cards, PUBLISHED, tmp_path / "smoke", "weightaug reproduce test/golden"),
        rounds=3,
        warmup_rounds=1,
    )
