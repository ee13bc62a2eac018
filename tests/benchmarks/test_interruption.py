"""SIGTERM and Ctrl-C: the step is finished, a checkpoint written, and the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from command_line import CommandLine, plugin_path, start

from benchmarks import interruption
from benchmarks.interruption import Interrupted, handled, postponed
from benchmarks.training import checkpoint


@pytest.fixture(autouse=True)
def _ctrl_c_is_not_ignored() -> Iterator[None]:
    """Programs that a shell starts in the background ignore it, and what they start does so, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


COMMAND = ["run", "method=was", "recipe.epochs=12", "recipe.batch_size=64", "device=cpu", "threads=1"]
COMMAND += ["wandb=disabled", "dataset.corruptions={contrast: [0.4, 0.3, 0.2, 0.1, 0.05]}"]


def wait(run: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert run.poll() is None, run.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def fraction(folder: Path) -> float:
    """The largest share of its training that a running cell has done."""
    beats = []
    for path in (folder / "runs" / "work").glob("*/heartbeat.json"):
        try:
            beats.append(json.loads(path.read_text())["fraction"])
        except OSError:  # its cell is finished
            continue
    return max(beats, default=0.0)


def test_a_terminated_command_goes_on_and_ends_with_the_same_bits(
    weightaug: CommandLine, tmp_path: Path
) -> None:
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    run = start(pieces, *COMMAND)
    wait(run, lambda: fraction(pieces) > 0)
    run.send_signal(signal.SIGTERM)
    run.send_signal(signal.SIGTERM)  # the same request again
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 143
    assert errors.splitlines()[-1].startswith("weightaug: stopped; ")
    assert "Traceback" not in errors
    kept = next((pieces / "runs" / "work").glob("*/checkpoint.pt"))
    step = torch.load(kept)["progress"]["step"]
    assert 0 < step < 12 * 22
    cards = []
    for folder in (pieces, tmp_path):
        os.chdir(folder)
        assert weightaug(*COMMAND).returncode == 0
        cards.append(json.loads(next((folder / "runs" / "cards").glob("*.json")).read_text()))
    first, second = cards
    assert [card["cost"]["resumed"] for card in cards] == [1, 0]
    for key in ("curve", "weights", "metrics"):
        assert first[key] == second[key], key
    assert not kept.parent.exists()


def test_ctrl_c_ends_the_workers_of_a_table_with_checkpoints(tmp_path: Path) -> None:
    command = ["reproduce", "signnoise/tiny", "--scale", "smoke", "recipe.epochs=200", "device=cpu"]
    run = start(tmp_path, *command, "workers=2", "wandb=disabled", path=plugin_path(tmp_path))
    wait(run, lambda: fraction(tmp_path) > 0)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "weightaug: stopped; " in errors
    assert "Traceback" not in errors
    kept = list((tmp_path / "runs" / "work").glob("*/checkpoint.pt"))
    assert kept
    assert all(torch.load(path)["version"] == checkpoint.VERSION for path in kept)
    assert not list((tmp_path / "runs" / "work").glob("*/heartbeat.json"))  # nobody is at work any more


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)


def test_a_signal_is_raised_at_once_or_when_it_may() -> None:
    with pytest.raises(Interrupted) as raised, handled(signal.SIGTERM):
        send()
        raise AssertionError
    assert raised.value.exit_code == 143
    steps = []
    with pytest.raises(Interrupted), handled(signal.SIGTERM), postponed():
        send()
        send()
        steps.append(interruption.requested())
        interruption.check()
        raise AssertionError
    assert steps == [signal.SIGTERM]
    with pytest.raises(Interrupted), handled(signal.SIGTERM), postponed():
        send()  # the end of the context raises it
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_who_asks_again_later_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "PATIENCE_SECONDS", 0.0)
    steps = []
    with pytest.raises(Interrupted), handled(signal.SIGINT), postponed():
        send(signal.SIGINT)
        steps.append(1)
        send(signal.SIGINT)
        steps.append(2)
    assert steps == [1]


def test_an_error_after_a_signal_is_its_consequence() -> None:
    with pytest.raises(Interrupted), handled(signal.SIGTERM), postponed():
        send()
        raise RuntimeError("a loader process was terminated")
    with pytest.raises(RuntimeError, match="no luck"), handled(signal.SIGTERM), postponed():
        raise RuntimeError("no luck")


def test_ignored_signals_stay_ignored_and_threads_leave_them_alone() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with handled(signal.SIGINT):
            send(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    seen = []

    def inside() -> None:
        with handled(signal.SIGTERM):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]
