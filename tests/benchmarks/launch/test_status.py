"""`weightaug status`: how far a table is."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import ROOT, CommandLine, environment
from planned_cards import card, put
from rich.console import Console

from benchmarks.interruption import Interrupted
from benchmarks.launch import status, status_view
from benchmarks.launch.request import Request
from benchmarks.results.heartbeat import Heartbeat
from benchmarks.results.store import Store

TABLE = ("status", "damp/table2", "--scale", "smoke")
ONLY = ("--only", "method=sgd", "--only", "panel=vit")


def test_states_of_cells(weightaug: CommandLine) -> None:
    none = weightaug(*TABLE, *ONLY)
    assert none.stdout.startswith("damp/table2 at scale smoke: 3 cells: 3 waiting\n")
    assert "store: runs, not there yet" in none.stdout
    assert list(Path().iterdir()) == []

    request = Request.parse("damp/table2", "smoke", "6", [], [], "reports", ONLY[1::2])
    ids = request.asked
    store = Store(Path("runs"), retries=1)
    put(card(request.cells[ids[0]]))
    put({**card(request.cells[ids[1]]), "status": "diverged", "metrics": None})
    lease = store.acquire(ids[2])
    assert lease is not None
    heartbeat = Heartbeat(store.work(ids[2]) / "heartbeat.json", lease, store.disk)
    heartbeat._reports = [(time.monotonic() - 60, 0.25), (time.monotonic(), 0.5)]
    heartbeat._fraction = 0.5
    heartbeat.say()
    for _ in range(2):
        store.failures.add(ids[3], "no luck")
    store.failures.add(ids[4], "once")
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}
    told = weightaug(*TABLE, *ONLY, "--seeds", "6")
    assert told.returncode == 0, told.stderr
    assert "6 cells: 2 done, 1 running, 1 failed, 2 waiting" in told.stdout
    assert f"process {os.getpid()} on {socket.gethostname()} since" in told.stdout
    left = re.search(r"50% done, (\d+) s left", told.stdout)
    assert left and 60 < int(left[1]) <= 120  # less by the seconds since
    assert "no luck (2 tries)" in told.stdout
    assert "failed before: once (1 try)" in told.stdout
    known = json.loads(weightaug(*TABLE, *ONLY, "--seeds", "6", "--json").stdout)
    assert known["counts"] == {"done": 2, "running": 1, "failed": 1, "waiting": 2}
    assert [known["cells"][cell_id]["state"] for cell_id in ids] == [
        *("done", "done", "running", "failed", "waiting", "waiting")
    ]
    assert len(known["cells"][ids[3]]["failure"]["attempts"]) == 2
    assert known["cells"][ids[2]]["heartbeat"]["host"] == socket.gethostname()
    # two cells as the two that are finished, of 6 epochs of 2 s and 1 s of evaluation, and what the running one says
    assert 2 * 13 + 60 < known["seconds_left"] <= 2 * 13 + 120
    assert before == {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}


def test_a_table_of_a_thousand_cells_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    request = Request.parse("damp/table2", "smoke", "65", [], [], "reports")
    cards = Store(Path("runs")).cards
    for cell_id in request.asked:
        (cards / f"{cell_id}.json").touch()
    reads: list[Path] = []
    monkeypatch.setattr(status, "load_card", lambda path, cell: reads.append(path))
    begun = time.process_time()
    status_view.show(request)
    assert f"{len(request.asked)} done" in capsys.readouterr().out
    assert len(request.asked) > 1000
    assert not reads
    assert time.process_time() - begun < 1.0


def test_a_pipe_gets_a_line_whenever_cells_have_come_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    request = Request.parse("damp/table2", "smoke", "2", [], [], "reports", ONLY[1::2])
    first, second = request.asked
    store = Store(Path("runs"))
    steps = iter(
        [
            lambda: None,
            lambda: put(card(request.cells[first])),
            lambda: None,
            lambda: store.failures.add(second, "no luck"),
        ]
    )
    monkeypatch.setattr(status_view.time, "sleep", lambda seconds: next(steps)())
    assert status_view.watch(request) == 0
    lines = capsys.readouterr().out.splitlines()
    begin = lines.index("store: runs")
    assert lines[0] == "damp/table2 at scale smoke: 2 cells: 2 waiting"
    assert [line.partition(" cells: ")[2] for line in lines[begin + 1 :]] == [
        "1 done, 1 waiting",
        "1 done, 1 failed",
    ]
    assert status_view.watch(request) == 0  # nothing is left to wait for
    assert "1 done, 1 failed" in capsys.readouterr().out


def test_a_terminal_is_redrawn_until_ctrl_c(tmp_path: Path) -> None:
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.cli", *TABLE, *ONLY, "--watch"],
        cwd=tmp_path,
        env=environment(str(ROOT)) | {"TERM": "xterm", "COLUMNS": "120"},
        stdout=inside,
        stderr=subprocess.PIPE,
    )
    os.close(inside)
    shown = b""
    while b"store: runs" not in shown:
        shown += os.read(terminal, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert process.stderr is not None and process.stderr.read() == b""
    assert b"3 cells: 3 waiting" in shown
    process.stderr.close()
    os.close(terminal)


def test_what_is_too_long_for_the_screen_is_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = Request.parse("damp/table2", "smoke", "1", [], [], "reports")
    screen = Console(file=io.StringIO(), force_terminal=True, width=120, height=8)

    def look(seconds: float) -> None:
        shown = screen.file.getvalue()  # type: ignore[attr-defined]
        assert "store: runs" in shown and "time left: " in shown
        assert "plain SGD" not in shown
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(status_view.time, "sleep", look)
    monkeypatch.setattr(status_view, "console", lambda: screen)
    assert status_view.watch(request) == 0


def test_watching_is_for_persons(weightaug: CommandLine) -> None:
    done = weightaug(*TABLE, "--watch", "--json")
    assert done.returncode == 2 and "not allowed with argument" in done.stderr
