"""Committed reports are what the command that they name makes of the cards that lie beside them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from command_line import ROOT, CommandLine

from benchmarks.reports.index import SUMMARY, index

REPORTS = ROOT / "reports"
SUMMARIES = sorted(REPORTS.glob(f"*/*/{SUMMARY}"))


def test_there_are_some() -> None:
    assert SUMMARIES


@pytest.mark.parametrize("beside", [path.parent for path in SUMMARIES], ids=lambda path: path.name)
def test_a_committed_report_is_made_again(beside: Path, weightaug: CommandLine, tmp_path: Path) -> None:
    """Plots are only looked for: their bytes depend on matplotlib's version."""
    text = beside.with_suffix(".md").read_text("utf-8")
    command = next(line for line in reversed(text.splitlines()) if line.startswith("weightaug report "))
    arguments = shlex.split(command)[1:]
    place = arguments.index("--cards") + 1
    assert ROOT / arguments[place] == beside / "cards"
    (tmp_path / "cards").symlink_to(beside / "cards")
    arguments[place] = str(tmp_path / "cards")
    done = weightaug(*arguments)
    assert done.returncode == 0 and not done.stderr
    again = tmp_path / "reports" / beside.relative_to(REPORTS)
    for suffix in (".md", ".html"):
        assert again.with_suffix(suffix).read_text("utf-8") == beside.with_suffix(suffix).read_text("utf-8")
    assert json.loads((again / SUMMARY).read_text()) == json.loads((beside / SUMMARY).read_text())
    for folder in ("", "cards"):
        assert {p.name for p in (again / folder).iterdir()} == {p.name for p in (beside / folder).iterdir()}


def test_the_committed_index_is_current() -> None:
    assert (REPORTS / "README.md").read_text("utf-8") == index(REPORTS)
