"""The real command on the golden mini-store, whose cards are partly diverged, missing or damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import CommandLine
from golden_report import GOLDEN, STORE, TABLE, damaged, registered, report, request, store


def test_the_store_is_what_its_generator_makes() -> None:
    assert {path.name: path.read_text("utf-8") for path in STORE.iterdir()} == store()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the command was run at each scale."""
    folder = tmp_path_factory.mktemp("mini")
    for scale in TABLE.scales:
        report(scale, folder)
    return folder


@pytest.mark.parametrize("suffix", [".md", ".html"])
@pytest.mark.parametrize("scale", TABLE.scales)
def test_the_command_writes_the_golden_reports(made: Path, scale: str, suffix: str) -> None:
    written = (made / "reports" / scale / "test-golden.md").with_suffix(suffix)
    assert written.read_bytes() == (GOLDEN / f"{scale}{suffix}").read_bytes()


def test_the_index_lists_both(made: Path) -> None:
    assert (made / "reports" / "README.md").read_bytes() == (GOLDEN / "README.md").read_bytes()


def test_damaged_cards_are_named_and_set_aside(weightaug: CommandLine, tmp_path: Path) -> None:
    bad = {name: text for name, text in damaged().items() if "copy" not in name}
    for name, text in store().items():
        (tmp_path / name).write_text(text)
    with registered():
        done = weightaug("report", "test/golden", "--scale", "smoke", "--cards", str(tmp_path))
    assert done.returncode == 0
    assert all(name in done.stderr for name in bad)
    assert "layout version 99" in done.stderr and "is the card of cell" in done.stderr
    assert len(list((tmp_path / "damaged").iterdir())) == len(bad)
    assert not any((tmp_path / name).is_file() for name in bad)


def test_nothing_but_damaged_cards_is_an_error(weightaug: CommandLine, tmp_path: Path) -> None:
    name = f"{request('smoke').positions['resnet', 'was-aom', 0]}.json"
    (tmp_path / name).write_text(damaged()[name])
    with registered():
        done = weightaug("report", "test/golden", "--scale", "smoke", "--cards", str(tmp_path))
    assert done.returncode == 2 and "no card of test/golden at scale smoke" in done.stderr


def test_index_without_reports_is_an_error(weightaug: CommandLine) -> None:
    done = weightaug("index")
    assert done.returncode == 2 and "there is no folder of reports reports" in done.stderr
