"""The speed report and the command of its GPU part, tried on the CPU with tiny sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.speed import report

ROOT = Path(__file__).resolve().parents[2]


def gpu_sh(reports: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    settings = {
        "PYTHON": sys.executable,
        "DEVICE": "cpu",
        "REPORTS": str(reports),
        "WEIGHTAUG_SPEED": "tiny",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [ROOT / "benchmarks/speed/gpu.sh"],
        env={**os.environ, **settings, **variables},
        capture_output=True,
        text=True,
        cwd=reports,
    )


def test_one_command_measures_and_reports(tmp_path: Path) -> None:
    done = gpu_sh(tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "speed/cpu.json").read_text())
    parts = [
        found[name] for name in ("limits", "losses", "steps", "layouts", "epochs", "others", "corruptions")
    ]
    assert not [part for part in parts if "failed" in part]
    assert all(row["held"] and row["deviation"] == 0 for row in found["losses"])  # it is the same engine
    assert {row["method"] for row in found["steps"]} >= {"SGD", "DAMP, M = 8", "SAM, M = 1"}
    assert all(row["over_hand_written"] > 0 and row["ran"] == "eager" for row in found["steps"])
    assert all(row["chosen"] in row["over_plain"] for row in found["layouts"])
    text = (tmp_path / "speed.md").read_text()
    assert "a trial of the program, no measurement" in text
    assert "NOT RUN: there are no measurements of a GPU" in text
    assert "| float32 | eager | eager | DAMP, M = 8 |" in text
    report.main(["--reports", str(tmp_path)])
    assert (tmp_path / "speed.md").read_text() == text


def test_a_measurement_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    done = gpu_sh(tmp_path, SECONDS_AT_MOST="0.2")
    assert done.returncode == 124
    assert "took more than 0.2 s" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_part_that_fails_is_told_and_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from benchmarks.speed import measure

    def fail(*arguments: object) -> None:
        raise RuntimeError("no memory left\nfor this")

    for part in ("_losses", "_steps", "_epochs", "_corruptions"):
        monkeypatch.setattr(measure, part, fail)
    monkeypatch.setattr("benchmarks.speed.others.others", fail)
    monkeypatch.setenv(report.SIZES_VARIABLE, "tiny")
    assert report.main(["--measure", "cpu", "--reports", str(tmp_path)]) == 0
    text = (tmp_path / "speed.md").read_text()
    assert text.count("FAILED: RuntimeError: no memory left") == 5
    assert "GB/s" in text


def test_bad_input(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(report.SIZES_VARIABLE, "huge")
    assert report.main(["--measure", "cpu", "--reports", str(tmp_path)]) == 2
    monkeypatch.delenv(report.SIZES_VARIABLE)
    (tmp_path / "speed").mkdir()
    (tmp_path / "speed/cpu.json").write_text("{")
    assert report.main(["--reports", str(tmp_path)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "use one of cuda, cpu, tiny" in said[0]
    assert "is no JSON" in said[1]
