"""The report of `weightaug dom`: every number that was measured, sentences that follow from the numbers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.cost.dom import MATERIALISED, PLAIN, ZERO_FILLED, Latency, NetworkSavings
from benchmarks.cost.dom_savings import DomCost, ShadowLayer
from benchmarks.cost.latency import Timings
from benchmarks.cost.trade_off import Found, Point, TradeOff
from benchmarks.reports.dom import Findings, markdown, terminal_tables, write_report
from benchmarks.reports.dom_tables import distance_text, draw_text, published_saving, relation_to_published
from weightaug.kernel_draws import Crop, Shift

TIMINGS = {
    (PLAIN, (0, 0)): Timings((1.0, 1.0, 2.0)),
    (ZERO_FILLED, (1, 0)): Timings((1.1, 1.0, 2.0)),
    (MATERIALISED, (1, 0)): Timings((0.55, 0.8, 1.0)),
}


def network(label: str, one: float, expected: float, macs: int = 1000) -> NetworkSavings:
    cost = DomCost(macs, 800, {"conv": ShadowLayer((3, 3), 720, True)})
    return NetworkSavings(
        label=label,
        cost=cost,
        by_distance={(0, 0): 0.0, (1, 0): one},
        mean_moved=one,
        expected_shift=expected,
        expected=expected / 2,
        sampled=(expected / 2, 0.001),
        fvcore_macs={(0, 0): (macs, macs), (1, 0): (760, 760)},
        latencies=(Latency("cpu", 128, TIMINGS),),
    )


FOUND = TradeOff(
    images=(755, 251, 251),
    held_out=True,
    plain=Point(1.0, 61.0, 62.0),
    still=Point(1.0, 88.0, 87.5),
    negative=("layer3.0.conv1",),
    random=(Point(0.8, 80.0, 81.0), Point(0.7, 82.0, 79.0)),
    found=(Found(0.75, {"conv": Shift(1, -1), "other": Shift(0, 0)}, Point(0.7412, 91.0, 90.25)),),
    scored=123,
)
FINDINGS = Findings(
    networks=(network("model=big method.transform=shift", 0.3, 0.2), network("model=small", 0.02, 0.01)),
    trade_off=FOUND,
    cell="was tiny digits",
    provenance={"hardware": {"cores": 2, "memory_bytes": 2**33}, "threads": 1},
    command="weightaug dom",
)


def test_every_number_is_in_the_text() -> None:
    text = markdown(FINDINGS)
    row = next(line for line in text.splitlines() if line.startswith("| big, transform=shift | 0.00 |"))
    assert row == "| big, transform=shift | 0.00 | 72.0 | 30.0 | 30.0 | 20.0 | 10.0 | 10.0 ± 0.1 |"
    assert "| big, transform=shift | 0.00 | 37.50 | 37.50 | 25.00 | 12.50 |" in text
    assert "| big, transform=shift | 1,000 | 1,000 | 760 | 760 |" in text
    assert "the very number of MACs that was computed" in text
    # the fastest passes: 1 / 1 and 0.55 / 1; ratios by round: 1.1, 1, 1 and 0.5, 0.8, 0.5
    assert "| 1 tap along one axis | 0.76 | 1.00 (1.00 to 1.05) | 0.55 (0.50 to 0.65) |" in text
    assert "| draws by chance, mean of 2 | 75.0 | 81.0 | 80.0 ± 1.4 | – |" in text
    assert "| found for at most 75 % | 74.1 | 91.0 | 90.2 | +10.2 |" in text
    assert "| plain weights (AOM) | 100.0 | 61.0 | 62.0 | −18.0 |" in text
    assert "| conv | 1 right, 1 up |" in text and "| other | – |" in text
    assert "K has become negative in layer3.0.conv1" in text
    assert "memory 8 GiB" in text and "Rounds: 3." in text
    assert "trained on the images of the search too" not in text
    assert "was not timed here" not in text


def test_what_is_not_so_is_not_said() -> None:
    wrong = replace(
        FINDINGS.networks[0], fvcore_macs={(0, 0): (1000, 1001), (1, 0): (760, 760)}, latencies=()
    )
    findings = replace(FINDINGS, networks=(wrong,), trade_off=replace(FOUND, negative=(), held_out=False))
    text = markdown(findings)
    assert "fvcore's counts differ from the computed ones" in text
    assert "Not measured (`--rounds 0`)" in text
    assert "K has become negative" not in text
    assert "trained on the images of the search too" in text


def test_a_smaller_batch_is_told() -> None:
    network = replace(FINDINGS.networks[0], latencies=(Latency("cpu", 16, TIMINGS),))
    text = markdown(replace(FINDINGS, networks=(network,)))
    assert "| cpu, batch 16<br>zero-filled / plain |" in text
    assert "The authors' batch size, 128, was not timed here" in text


def test_relation_to_the_published_figure() -> None:
    assert published_saving() == 36.33
    none, reach, mean = relation_to_published(FINDINGS.networks)
    # 30 % of all FLOPs are 37.5 % of the convolutions'
    assert none == (
        "No count here gives 36.33 %; the nearest is 37.50 % "
        "(big, transform=shift, convolutions alone: 1 tap along one axis)."
    )
    assert reach == (
        "As the most that one draw for all layers can save: within reach of none; out of reach of "
        "big, transform=shift (30.0 %), small (2.0 %)."
    )
    assert "the highest here is 20.0 % (big, transform=shift) if T1 is always drawn, and 10.0 %" in mean
    exact = (network("model=it", 0.3633, 0.2), network("model=more", 0.5, 0.4))
    none, reach, mean = relation_to_published(exact)
    assert none.startswith("One count here is 36.33 % (it: 1 tap along one axis)")
    assert reach.endswith("within reach of it (36.3 %), more (50.0 %).")
    assert "40.0 % (more)" in mean


@pytest.mark.parametrize(
    ("far", "text"),
    [
        ((0, 0), "no shift"),
        ((1, 0), "1 tap along one axis"),
        ((2, 2), "2 taps along both axes"),
        ((2, 1), "2 taps along one axis, 1 along the other"),
    ],
)
def test_words_for_shifts(far: tuple[int, int], text: str) -> None:
    assert distance_text(far) == text


def test_words_for_draws() -> None:
    assert draw_text(Shift(-2, 1)) == "2 left, 1 down"
    assert draw_text(Shift(0, 0)) == "–"
    assert draw_text(Crop(0, 0, 2, 3)) == "window of 2x3 at (0, 0)"


def test_files_and_same_bytes(tmp_path: Path) -> None:
    path = write_report(FINDINGS, tmp_path / "dom")
    links = set(re.findall(r"\]\(([^)]+)\)", path.read_text()))
    assert links == {"trade_off.png", "measurements.json"}
    assert (path.parent / "trade_off.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((path.parent / "measurements.json").read_text())
    assert found["networks"][0]["latency"][0]["seconds"]["materialised 1,0"] == [0.55, 0.8, 1.0]
    assert found["trade_off"]["found"][0]["confirmation"] == 90.25
    write_report(FINDINGS, tmp_path / "again")
    for file in ("dom.md", "trade_off.png", "measurements.json"):
        assert (tmp_path / "dom" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_terminal_fits_eighty_columns() -> None:
    console = Console(width=80, file=StringIO())
    for table in terminal_tables(FINDINGS):
        console.print(table)
    text = console.file.getvalue()
    assert "…" not in text and "0.55" in text and "90.2" in text
