"""A whole table, as a person makes it: with a plug-in, killed and run again, by two commands at once."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import PLUGIN, CommandLine, plugin_path, start
from offline_runs import read_run

TINY = ["reproduce", "signnoise/tiny", "--scale", "smoke", "device=cpu", "workers=1", "threads=1"]
CELLS = 4  # two rows, two seeds


def finish(run: subprocess.Popen[str]) -> tuple[str, str]:
    output, errors = run.communicate(timeout=180)
    assert run.returncode == 0, errors
    return output, errors


def cards(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a table that was made without being disturbed, and what the command said."""
    folder = tmp_path_factory.mktemp("whole")
    output, errors = finish(start(folder, *TINY, "workers=2", path=plugin_path(folder)))
    (folder / "output").write_text(output)
    (folder / "errors").write_text(errors)
    return folder


def test_a_plug_in_makes_a_table(whole: Path) -> None:
    output, errors = (whole / "output").read_text(), (whole / "errors").read_text()
    assert "4 of 4 cells finished" in errors
    assert "[4/4]" in errors
    assert "s left" in errors
    assert "SignNoise" in output
    assert "report: reports/smoke/signnoise-tiny.md" in output
    assert len(cards(whole / "runs" / "cards")) == CELLS
    listed, _ = finish(start(whole, "list", "methods", path=plugin_path(whole)))
    assert re.search(r"^signnoise +Plain gradient plus random signs", listed, re.MULTILINE)


def test_the_report_is_made_again_from_its_own_cards(whole: Path) -> None:
    report = whole / "reports" / "smoke" / "signnoise-tiny.md"
    text = report.read_text()
    report.unlink()
    again = ["report", *TINY[1:4], "--cards", "reports/smoke/signnoise-tiny/cards"]
    finish(start(whole, *again, path=plugin_path(whole)))
    assert report.read_text() == text


def test_finished_cells_are_not_run_again(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (whole / "runs" / "cards").iterdir()}
    assert "4 finished before" in finish(start(whole, *TINY, "wandb=disabled", path=plugin_path(whole)))[1]
    assert before == {path: path.stat().st_mtime_ns for path in (whole / "runs" / "cards").iterdir()}


def test_a_plug_in_joins_our_table_by_one_option(weightaug: CommandLine) -> None:
    from benchmarks.launch.reproduce import Request

    request = Request.parse(
        "damp/table2", "smoke", 1, ["method=sgd recipe.momentum=0.5"], ["recipe.epochs=1"], "reports"
    )
    places = {row for _, row, _ in request.positions}
    assert "sgd-recipe.momentum=0.5" in places
    assert len(request.cells) == 2 * 9
    assert all(cell.recipe.epochs == 1 for cell in request.cells.values())


def test_killed_at_any_moment_and_run_again_nothing_is_lost(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "cards"
    command = [*TINY, "wandb=disabled"]
    kept: dict[str, int] = {}
    for target in (0, 2):  # kill the command once so many cells are finished and others are running
        run = start(tmp_path, *command, path=plugin_path(tmp_path))
        deadline = time.monotonic() + 120
        while len(cards(folder)) < target or not any((tmp_path / "runs" / "work").glob("*/heartbeat.json")):
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.02)
        os.kill(run.pid, signal.SIGKILL)
        run.communicate()
        now = times(folder)
        assert kept.items() <= now.items()
        kept = now
    finish(start(tmp_path, *command, path=plugin_path(tmp_path)))
    assert kept.items() <= times(folder).items()
    ours, theirs = cards(folder), cards(whole / "runs" / "cards")
    assert ours.keys() == theirs.keys()
    assert all(ours[key]["metrics"] == theirs[key]["metrics"] for key in ours)
    assert "NOT RUN" not in (tmp_path / "reports" / "smoke" / "signnoise-tiny.md").read_text()


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}


def test_two_commands_share_a_table(whole: Path, tmp_path: Path) -> None:
    command = [*TINY, "wandb=disabled", "workers=1"]
    runs = [
        start(tmp_path, *command, "--reports", name, path=plugin_path(tmp_path))
        for name in ("first", "second")
    ]
    said = "".join(finish(run)[1] for run in runs)
    assert said.count("4 of 4 cells finished") == 2
    found = cards(tmp_path / "runs" / "cards")
    assert {key: card["metrics"] for key, card in found.items()} == {
        key: card["metrics"] for key, card in cards(whole / "runs" / "cards").items()
    }
    assert not any((tmp_path / "runs" / "work").glob("*/*"))
    reports = [(tmp_path / name / "smoke" / "signnoise-tiny.md").read_text() for name in ("first", "second")]
    assert reports[0] == reports[1]


def test_parts_of_a_table_are_shared_by_commands(tmp_path: Path) -> None:
    """One command takes a row, the other a seed; both ask for one cell, and nobody for another."""
    command = [*TINY, "wandb=disabled", "recipe.epochs=1", "evaluation.corruptions=false"]
    parts = {"row": ["--only", "row=sgd"], "seed": ["--seeds", "0..1", "--only", "seed=0"]}
    path = plugin_path(tmp_path)
    runs = [start(tmp_path, *command, *only, "--reports", name, path=path) for name, only in parts.items()]
    assert ["2 of 2 cells finished" in finish(run)[1] for run in runs] == [True, True]
    found = cards(tmp_path / "runs" / "cards").values()
    trained = [(card["cell"]["method"]["name"], card["cell"]["seed"]) for card in found]
    assert sorted(trained) == [("sgd", 0), ("sgd", 1), ("signnoise", 0)]


def test_wandb_is_filled_again_with_what_the_live_mirror_sent(
    whole: Path, weightaug: CommandLine, tmp_path: Path
) -> None:
    shutil.copytree(whole / "runs" / "cards", tmp_path / "runs" / "cards")
    assert weightaug("wandb-sync").returncode == 0
    live, again = (
        {run["id"]: run for run in map(read_run, (folder / "runs" / "wandb").glob("offline-run-*"))}
        for folder in (whole, tmp_path)
    )
    assert again.keys() == cards(whole / "runs" / "cards").keys()
    for run_id, run in again.items():
        for key in ("group", "job_type", "finished"):
            assert run[key] == live[run_id][key]
        for key in ("config", "summary", "history"):
            assert comparable(run[key]) == comparable(live[run_id][key])


def comparable(logged: Any) -> Any:
    """Without what W&B adds of its own: times, and where its files lie."""
    if isinstance(logged, list):
        return [comparable(row) for row in logged]
    places = ("path", "sha256", "artifact_path", "_latest_artifact_path")
    mine = {key: value for key, value in logged.items() if not key.startswith("_")}
    return {key: value for key, value in mine.items() if key.partition(".")[2] not in places}


def broken_plugin(folder: Path, line: str) -> str:
    """A path on which the plug-in does ``line`` in every step."""
    broken = folder / "broken" / "signnoise"
    broken.mkdir(parents=True)
    source = (PLUGIN / "signnoise" / "__init__.py").read_text()
    (broken / "__init__.py").write_text(
        source.replace("loss = criterion", f"{line}\n        loss = criterion")
    )
    (broken / "configs").symlink_to(PLUGIN / "signnoise" / "configs")
    return plugin_path(folder).replace(str(PLUGIN), str(broken.parent))


def test_a_cell_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    command = [*TINY, "--seeds", "1", "wandb=disabled", "recipe.epochs=1", "evaluation.corruptions=false"]
    path = broken_plugin(tmp_path, "import os; os.kill(os.getpid(), 9)")
    run = start(tmp_path, *command, "retries=0", path=path)
    _, errors = run.communicate(timeout=180)
    assert run.returncode == 1, errors
    assert "FAILED: its worker died: process " in errors
    assert "1 of 2 cells finished" in errors


def test_a_failing_cell_does_not_take_the_table_with_it(tmp_path: Path) -> None:
    command = [*TINY, "wandb=disabled"]
    run = start(tmp_path, *command, path=broken_plugin(tmp_path, "raise RuntimeError('no luck')"))
    _, errors = run.communicate(timeout=180)
    assert run.returncode == 1
    assert "FAILED: RuntimeError: no luck" in errors
    assert "2 of 4 cells finished" in errors
    assert "NOT RUN" in (tmp_path / "reports" / "smoke" / "signnoise-tiny.md").read_text()
    failure = next((tmp_path / "runs" / "work").glob("*/failure.json"))
    known = json.loads(failure.read_text())
    assert "no luck" in known["details"]
    assert len(known["attempts"]) == 3
    errors = finish(start(tmp_path, *command, path=plugin_path(tmp_path)))[
        1
    ]  # mended: only the failed cells run
    assert "2 finished before" in errors


def test_wandb_offline_holds_config_curves_metrics_and_tables(whole: Path) -> None:
    runs = [read_run(path) for path in (whole / "runs" / "wandb").glob("offline-run-*")]
    ours = [run for run in runs if run["job_type"] == "cell"]
    assert len(ours) == CELLS
    for run in ours:
        card = json.loads((whole / "runs" / "cards" / f"{run['id']}.json").read_text())
        assert run["group"] == "signnoise/tiny"
        assert run["config"]["method"]["name"] == card["cell"]["method"]["name"]
        assert [row["train/loss"] for row in run["history"] if "train/loss" in row] == [
            pytest.approx(entry["loss"]) for entry in card["curve"]
        ]
        assert run["summary"]["plain/clean/error"] == pytest.approx(
            card["metrics"]["plain"]["clean"]["error"]
        )
        assert run["summary"]["errors._type"] == "table-file"
        assert run["summary"]["errors.nrows"] == 31  # clean, and 6 types at 5 severities
    reports = [run for run in runs if run["job_type"] == "report"]
    assert len(reports) == 1
    assert reports[0]["summary"]["report.nrows"] == 4
    assert reports[0]["summary"]["claims.nrows"] == 1
    assert reports[0]["summary"]["severity._type"] == "image-file"


def test_a_failing_wandb_is_a_warning_and_the_card_is_complete(
    weightaug: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import wandb

    def fail(**_: object) -> None:
        raise OSError("no space for W&B")

    monkeypatch.setattr(wandb, "init", fail)
    done = weightaug("run", "recipe.epochs=1", "device=cpu", "threads=1")
    assert done.returncode == 0
    assert "warning: W&B: no space for W&B" in done.stderr
    assert len(cards(tmp_path / "runs" / "cards")) == 1


def test_wandb_online_without_an_account_logs_offline_and_does_not_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    _, errors = finish(start(tmp_path, "run", "recipe.epochs=1", "device=cpu", "threads=1", "wandb=online"))
    assert "no account is set up" in errors
    assert len(list((tmp_path / "runs" / "wandb").glob("offline-run-*"))) == 1
