"""The report: golden texts, every number from the cards, nothing hidden, the same bytes every time."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_report import GOLDEN, MISSING, PUBLISHED, SEEDS, TABLE, cards, command, evidence, text
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.errors import UserError
from benchmarks.reports.render import terminal_table, write_report
from benchmarks.reports.verdicts import Verdict
from benchmarks.tables.claims import Ordering, Ratio

PNG = b"\x89PNG\r\n"


@pytest.mark.parametrize("scale", ["smoke", "full"])
def test_golden_text(scale: str) -> None:
    assert text(scale).encode() == (GOLDEN / f"{scale}.md").read_bytes()


def write(scale: str, folder: Path, of: Any = None) -> Path:
    return write_report(
        TABLE, scale, SEEDS, cards(scale) if of is None else of, PUBLISHED, folder, command(scale)
    )


def test_files_links_and_same_bytes(tmp_path: Path) -> None:
    path = write("smoke", tmp_path / "a")
    assert path == tmp_path / "a" / "test-golden.md"
    assert path.read_bytes() == (GOLDEN / "smoke.md").read_bytes()
    links = set(re.findall(r"\]\(([^)]+)\)", path.read_text()))
    distinct = {card["id"] for card in cards("smoke").values() if card}
    assert {link for link in links if "/cards/" in link} == {f"test-golden/cards/{i}.json" for i in distinct}
    assert all((path.parent / link).is_file() for link in links)
    plots = sorted((path.parent / "test-golden").glob("*.png"))
    assert len(plots) == 4 and all(plot.read_bytes().startswith(PNG) for plot in plots)
    # made again from the cards that lie beside it, which JSON has sorted
    saved = {p.stem: json.loads(p.read_text()) for p in (path.parent / "test-golden" / "cards").iterdir()}
    again = {place: card and saved[card["id"]] for place, card in cards("smoke").items()}
    write("smoke", tmp_path / "b", again)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 2 + 4 + 1 + len(distinct)  # texts, plots, summary
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def numbers(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every number in a card."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from numbers(item, (*path, key))
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield path


PLACE = ("vit", "was-aom", 0)


@pytest.mark.parametrize("part", ["metrics", "cost", "curve", "provenance"])
def test_changing_any_number_of_a_card_changes_the_report(part: str) -> None:
    """Every measured number shows outside the digest. The rest of a card holds its schema, which is checked when it is
    read, and its cell's settings, which have to agree with the cell that the table asks for."""
    original = cards("full")
    shown = re.sub("Digest.*", "", text("full", original))
    for path in numbers(original[PLACE][part]):
        changed = copy.copy(original)
        card = copy.deepcopy(original[PLACE])
        place = card[part]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = place[path[-1]] * 2 + 7
        for row in ("was-aom", "was-dom"):
            changed["vit", row, 0] = card
        after = re.sub("Digest.*", "", text("full", changed))
        assert after != shown, path


def table_rows(markdown: str, heading: str) -> list[list[str]]:
    """The rows of the first table after ``heading``."""
    lines = markdown.split(heading, 1)[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| --- |"))
    rows = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def shown(values: list[float]) -> str:
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def number_rows(markdown: str, panel: str) -> dict[tuple[str, str], list[str]]:
    """Row and column -> published, measured, difference, interval, verdict, note."""
    rows = table_rows(markdown, f"<summary>{panel}: difference")
    return {(cells[0].removesuffix(" †"), cells[1]): cells[2:] for cells in rows}


def test_every_measured_number_comes_from_the_cards() -> None:
    of = cards("full")
    rows = number_rows(text("full", of), "made-up ViT")
    for row in TABLE.rows:
        metrics = [of["vit", row.name, seed]["metrics"][row.mode] for seed in SEEDS]
        clean = [m["clean"]["error"] for m in metrics]
        corrupted = [np.mean([of_type["error"] for of_type in m["corrupted"].values()]) for m in metrics]
        cells = rows[row.title, "Clean (%)"]
        assert cells[1] == shown(clean) and rows[row.title, "C (%)"][1] == shown(corrupted)
        if row.published and (value := PUBLISHED.value(row.published, "clean").value) is not None:
            assert cells[0].split(" ")[0] == f"{value:.1f}"
            assert cells[2] == f"{np.mean(clean) - value:+.2f}".replace("-", "−")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=3, max_size=3))
def test_measured_cell_follows_any_cards(errors: list[float]) -> None:
    of = copy.deepcopy(cards("full"))
    for seed, error in zip(SEEDS, errors, strict=True):
        of["vit", "sgd", seed]["metrics"]["plain"]["clean"]["error"] = error
    report = text("full", of)
    measured = number_rows(report, "made-up ViT")["plain SGD 1x", "Clean (%)"][1]
    mean, spread = map(float, measured.split(" ± "))
    assert mean == pytest.approx(np.mean(errors), abs=0.006)
    assert spread == pytest.approx(np.std(errors, ddof=1), abs=0.006)


def test_verdicts_at_full_scale() -> None:
    found = {
        (line.row.name, n.column.name): n.finding
        for line in evidence("full").lines["vit"]
        for n in line.numbers
    }
    assert found["dropout", "clean"].verdict is Verdict.REPRODUCED
    assert found["damp", "clean"].verdict is Verdict.DIFFERENT
    assert found["damp", "c"].verdict is Verdict.DIFFERENT
    assert found["sam", "clean"].verdict is Verdict.NO_REFERENCE
    assert found["sam", "clean"].reason == "a bar chart without numbers"
    assert found["sgd", "c"].verdict is Verdict.NO_REFERENCE
    claims = {this.claim.name: this.finding.verdict for this in evidence("full").claims}
    assert claims["damp-below-dropout"] is Verdict.REPRODUCED
    assert claims["dropout-below-sam"] is Verdict.DIFFERENT
    assert claims["sam-costs-twice"] is Verdict.REPRODUCED
    assert claims["damp-costs-half"] is Verdict.DIFFERENT


def test_smoke_scale_never_claims_a_published_number() -> None:
    of = cards("smoke")
    for card in of.values():  # even if the numbers were the paper's own
        if card and card["metrics"]:
            card["metrics"]["plain"]["clean"]["error"] = 7.0
    counts = evidence("smoke", of).counts(None)
    assert (
        not counts[Verdict.REPRODUCED] and not counts[Verdict.DIFFERENT] and counts[Verdict.PROTOCOL_MISMATCH]
    )
    assert "**Smoke scale: it never claims a published number.**" in text("smoke", of)


def test_missing_and_diverged_runs_are_shown() -> None:
    report = text("smoke")
    rows = {cells[0]: cells for cells in table_rows(report, "### made-up ResNet")}
    assert (
        rows["SAM 1x"][1].startswith("diverged 1 of 3")
        and "diverged (epoch 2, step 31)" in rows["SAM 1x"][-1]
    )
    assert rows["WAS (AOM) 1x †"][1] == "NOT RUN –"
    assert rows["WAS (AOM) 1x †"][-1] == "0 NOT RUN, 1 NOT RUN, 2 NOT RUN"
    assert number_rows(report, "made-up ResNet")["WAS (AOM) 1x", "Clean (%)"][-2] == "– NOT RUN"
    claim = next(
        c
        for c in evidence("smoke").claims
        if c.claim.name == "dropout-below-sam" and c.panel.name == "resnet"
    )
    assert claim.finding.reason == "1 diverged run counts as 100 %"
    assert claim.finding.estimate is not None and claim.finding.estimate < -20
    assert evidence("smoke").missing == len(MISSING)  # cells, of which two rows share each
    assert f"1 diverged, {len(MISSING)} NOT RUN." in report


def test_a_row_that_always_diverges_loses() -> None:
    of = cards("full")
    for seed in SEEDS:
        of["vit", "damp", seed] |= {"status": "diverged", "metrics": None}
    here = evidence("full", of)
    number = next(line for line in here.lines["vit"] if line.row.name == "damp").numbers[0]
    assert number.finding.verdict is Verdict.DIFFERENT
    assert number.finding.reason == "3 diverged runs count as 100 %"
    claims = {this.claim.name: this.finding for this in here.claims}
    assert claims["damp-below-dropout"].verdict is Verdict.DIFFERENT
    assert claims["damp-costs-half"].verdict is Verdict.DIFFERENT  # its cost is known all the same


def test_one_seed_decides_nothing() -> None:
    of = {place: card if place[2] == 0 else None for place, card in cards("full").items()}
    here = evidence("full", of)
    for kind in (Ordering, Ratio):
        assert set(here.counts(kind)) == {Verdict.INCONCLUSIVE}
    assert set(here.counts(None)) == {Verdict.INCONCLUSIVE, Verdict.NO_REFERENCE}
    assert "one seed has no spread" in text("full", of)


def test_equal_differences_decide_nothing() -> None:
    of = cards("full")
    for seed in SEEDS:
        errors = {"was": 5.0 + seed, "sgd": 6.0 + seed}
        of["vit", "was-aom", seed]["metrics"]["plain"]["clean"]["error"] = errors["was"]
        of["vit", "sgd", seed]["metrics"]["plain"]["clean"]["error"] = errors["sgd"]
    claim = next(this for this in evidence("full", of).claims if this.claim.name == "was-below-sgd")
    assert claim.finding.verdict is Verdict.INCONCLUSIVE and "do not differ" in claim.finding.reason


def test_no_corruptions_and_no_memory() -> None:
    of = cards("full")
    for card in of.values():
        card["cost"]["peak_memory_bytes"] = None
        for metrics in card["metrics"].values():
            metrics["corrupted"] = {}
    assert "not measured" in text("full", of)


def test_no_cards_at_all_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no card of test/golden at smoke scale; run: {command('smoke')}"):
        write("smoke", tmp_path, {})
    assert not list(tmp_path.iterdir())


def test_terminal_table_has_the_main_numbers() -> None:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    grid = terminal_table(TABLE, "smoke", SEEDS, cards("smoke"), PUBLISHED)
    console.print(grid)
    shown = console.export_text()
    for cells in number_rows(text("smoke"), "made-up ViT").values():
        assert cells[1] in shown
    assert "diverged 1 of 3" in shown and "NOT RUN" in shown and "never compare" in shown
    assert "4 ratios: 4 PROTOCOL MISMATCH" in shown
