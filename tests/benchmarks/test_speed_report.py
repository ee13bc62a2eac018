"""The speed report and the command of its GPU part, tried on the CPU with tiny sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.speed import report
from benchmarks.speed.measure import SIZES, Device
from benchmarks.speed.tasks import tasks

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
    assert found["failed"] == found["left_out"] == []
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


def test_when_the_time_is_up_the_report_says_what_is_left(tmp_path: Path) -> None:
    done = gpu_sh(tmp_path, MINUTES="0")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "speed/cpu.json").read_text())
    assert (len(found["limits"]), found["steps"], found["epochs"]) == (1, [], [])
    text = (tmp_path / "speed.md").read_text()
    assert "- NOT RUN, the time was up: float32, eager, SGD; float32, eager, DAMP, M = 1;" in text
    assert "- NOT RUN, the time was up: SAM; loader\n" in text
    assert "GB/s" in text


def test_a_measurement_without_end_is_ended(tmp_path: Path) -> None:
    done = gpu_sh(tmp_path, SECONDS_AT_MOST="0.2")
    assert done.returncode == 124
    assert "after 0.2 s a measurement was ended" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["speed.md"]


def test_a_measurement_that_fails_is_told_and_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import benchmarks.speed.tasks as module

    def fail(*arguments: object) -> None:
        raise RuntimeError("no memory left\nfor this")

    for part in ("losses", "step", "epoch", "corruptions", "sam", "loader", "layouts"):
        monkeypatch.setattr(module, part, fail)
    monkeypatch.setenv(report.SIZES_VARIABLE, "tiny")
    assert report.main(["--measure", "cpu", "--reports", str(tmp_path)]) == 0
    text = (tmp_path / "speed.md").read_text()
    assert "- FAILED: float32, eager, SGD: RuntimeError: no memory left" in text
    assert text.count("FAILED") == len(list(tasks(Device("cpu", SIZES["tiny"])))) - 1
    assert "GB/s" in text


def test_the_most_wanted_comes_first_on_a_gpu() -> None:
    told = [
        f"{task.part}: {task.what}"
        for task in tasks(Device("cuda", replace(SIZES["cuda"], width=8, images=128)))
    ]
    assert len(told) == len(set(told)) > 80
    compiled = [place for place, what in enumerate(told) if "compiled" in what or "graph" in what]
    assert compiled == list(range(compiled[0], len(told)))  # what has to be compiled comes last
    assert told[compiled[0] : compiled[0] + 2] == ["epochs: bf16, graph", "steps: bf16, graph, SGD"]
    for engine in ("eager", "graph"):  # what is fast must also be right
        assert told.index(f"losses: {engine}, sam") < told.index(f"epochs: tf32, {engine}")


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
