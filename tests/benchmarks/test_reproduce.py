"""A whole table, as a person makes it: with a plug-in, killed and run again, by two commands at once."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine

Start = Callable[..., subprocess.Popen[str]]
TINY = ["reproduce", "signnoise/tiny", "--scale", "smoke", "device=cpu", "workers=2", "threads=1"]
CELLS = 4  # two rows, two seeds


def finish(run: subprocess.Popen[str]) -> tuple[str, str]:
    output, errors = run.communicate(timeout=180)
    assert run.returncode == 0, errors
    return output, errors


def cards(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_a_plug_in_makes_a_table_and_the_report_is_made_again_from_cards(
    process: Start, plugin_path: str, tmp_path: Path
) -> None:
    listed, _ = process("list", "methods", path=plugin_path).communicate(timeout=60)
    assert "signnoise  Plain gradient plus random signs" in listed
    output, errors = finish(process(*TINY, path=plugin_path))
    assert "4 of 4 cells finished" in errors
    assert "left" in errors
    assert "SignNoise" in output
    report = tmp_path / "reports" / "smoke" / "signnoise-tiny.md"
    assert f"report: {report.relative_to(tmp_path)}" in output
    assert len(cards(tmp_path / "runs" / "cards")) == CELLS
    text = report.read_text()
    report.unlink()
    again = ["report", *TINY[1:4], "--cards", "reports/smoke/signnoise-tiny/cards"]
    finish(process(*again, path=plugin_path))
    assert report.read_text() == text
    output, errors = finish(process(*TINY, path=plugin_path))
    assert "4 finished before" in errors


def test_a_plug_in_joins_our_table_by_one_option(weightaug: CommandLine) -> None:
    from benchmarks.launch.reproduce import Request

    request = Request.parse(
        "damp/table2", "smoke", 1, ["method=sgd recipe.momentum=0.5"], ["recipe.epochs=1"], "reports"
    )
    places = {row for _, row, _ in request.places}
    assert "sgd-recipe.momentum=0.5" in places
    assert len(request.cells) == 2 * 9
    assert all(cell.recipe.epochs == 1 for cell in request.cells.values())


def test_killed_at_any_moment_and_run_again_nothing_is_lost(
    process: Start, plugin_path: str, tmp_path: Path
) -> None:
    whole = process(*TINY, "store=whole", "--reports", "whole-reports", path=plugin_path)
    finish(whole)
    folder = tmp_path / "runs" / "cards"
    kept: dict[str, int] = {}
    for target in (0, 1, 2):  # kill the command and its workers once so many cells are finished
        run = process(*TINY, path=plugin_path)
        deadline = time.monotonic() + 120
        while len(cards(folder)) < target or not any((tmp_path / "runs" / "work").glob("*/heartbeat.json")):
            assert time.monotonic() < deadline
            if run.poll() is not None:
                break
            time.sleep(0.02)
        os.kill(run.pid, signal.SIGKILL)
        run.communicate()
        now = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}
        assert kept.items() <= now.items()
        kept = now
    finish(process(*TINY, path=plugin_path))
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}.items()
    ours, theirs = cards(folder), cards(tmp_path / "whole" / "cards")
    assert ours.keys() == theirs.keys()
    assert all(ours[key]["metrics"] == theirs[key]["metrics"] for key in ours)
    assert "NOT RUN" not in (tmp_path / "reports" / "smoke" / "signnoise-tiny.md").read_text()


def test_two_commands_share_a_table(process: Start, plugin_path: str, tmp_path: Path) -> None:
    first = process(*TINY, "--reports", "first", path=plugin_path)
    second = process(*TINY, "--reports", "second", path=plugin_path)
    said = finish(first)[1] + finish(second)[1]
    assert said.count("4 of 4 cells finished") == 2
    found = cards(tmp_path / "runs" / "cards")
    assert len(found) == CELLS
    assert not any((tmp_path / "runs" / "work").glob("*/*"))
    reports = [(tmp_path / name / "smoke" / "signnoise-tiny.md").read_text() for name in ("first", "second")]
    assert reports[0] == reports[1]


def test_a_failing_cell_does_not_take_the_table_with_it(
    process: Start, plugin_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    source = (Path(__file__).parents[1] / "plugin" / "signnoise" / "__init__.py").read_text()
    (broken / "signnoise").mkdir()
    (broken / "signnoise" / "__init__.py").write_text(
        source.replace("loss = criterion", "raise RuntimeError('no luck')\n        loss = criterion")
    )
    (broken / "signnoise" / "configs").symlink_to(Path(__file__).parents[1] / "plugin" / "signnoise" / "configs")
    site, _, root = plugin_path.split(os.pathsep)
    run = process(*TINY, path=os.pathsep.join([site, str(broken), root]))
    _, errors = run.communicate(timeout=180)
    assert run.returncode == 1
    assert "FAILED: RuntimeError: no luck" in errors
    assert "2 of 4 cells finished" in errors
    assert "NOT RUN" in (tmp_path / "reports" / "smoke" / "signnoise-tiny.md").read_text()
    failure = next((tmp_path / "runs" / "work").glob("*/failure.json"))
    assert "no luck" in json.loads(failure.read_text())["details"]
    errors = finish(process(*TINY, path=plugin_path))[1]  # mended: only the failed cells run
    assert "2 finished before" in errors


def test_wandb_offline_holds_config_curves_metrics_and_tables(
    process: Start, plugin_path: str, tmp_path: Path
) -> None:
    finish(process(*TINY, path=plugin_path))
    runs = {path.name: read_wandb(path) for path in (tmp_path / "runs" / "wandb").glob("offline-run-*/*.wandb")}
    ours = [run for run in runs.values() if run["job_type"] == "cell"]
    assert len(ours) == CELLS
    for run in ours:
        card = json.loads((tmp_path / "runs" / "cards" / f"{run['id']}.json").read_text())
        assert run["group"] == "signnoise/tiny"
        assert run["config"]["method"]["name"] == card["cell"]["method"]["name"]
        assert [row["train/loss"] for row in run["history"] if "train/loss" in row] == [
            pytest.approx(entry["loss"]) for entry in card["curve"]
        ]
        assert run["summary"]["plain/clean/error"] == pytest.approx(card["metrics"]["plain"]["clean"]["error"])
        assert run["summary"]["errors"]["_type"] == "table-file"
        assert run["summary"]["errors"]["nrows"] == 31
    reports = [run for run in runs.values() if run["job_type"] == "report"]
    assert len(reports) == 1
    assert reports[0]["summary"]["report"]["nrows"] == 4


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
    process: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    _, errors = finish(process("run", "recipe.epochs=1", "device=cpu", "threads=1", "wandb=online"))
    assert "no account is set up" in errors
    assert len(list((tmp_path / "runs" / "wandb").glob("offline-run-*"))) == 1


def read_wandb(path: Path) -> dict[str, Any]:
    """What an offline run wrote, read back from its transaction log."""
    from wandb.proto import wandb_internal_pb2

    found: dict[str, Any] = {"history": [], "summary": {}, "config": {}}
    for data in log_records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"id": record.run.run_id, "group": record.run.run_group, "job_type": record.run.job_type}
            found["config"] |= values(record.run.config.update)
        elif kind == "history":
            found["history"].append(values(record.history.item))
        elif kind == "summary":
            found["summary"] |= values(record.summary.update)
    return found


def values(items: Any) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def log_records(data: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format: blocks of 32 KiB, pieces with checksum, length and kind."""
    assert data[:4] == b":W&B"
    position, record, (full, first, _, last) = 7, b"", (1, 2, 3, 4)
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        piece = data[position + 7 : position + 7 + length]
        record = piece if kind in (full, first) else record + piece
        if kind in (full, last):
            yield record
        position += 7 + length
