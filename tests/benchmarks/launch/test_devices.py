"""`weightaug run devices=2` as a person uses it: signals, violent deaths, bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from command_line import CommandLine, start
from machines import on_machines

from benchmarks.config import load
from benchmarks.errors import PassingError, UserError
from benchmarks.interruption import Interrupted
from benchmarks.launch import single
from benchmarks.launch.devices import KilledError, ProcessError, _kind, _raise_for, device_of
from benchmarks.launch.group import STOP_SECONDS
from benchmarks.launch.single import _trained
from benchmarks.results.code import Code
from benchmarks.results.disk import DiskError
from benchmarks.results.lease import LeaseLostError
from benchmarks.results.provenance import machine
from benchmarks.runtime import Runtime, cores
from benchmarks.training.processes import Processes

COMMAND = ["run", "device=cpu", "threads=1", "wandb=disabled", 'model.blocks="1"', "checkpoint_seconds=0"]
STREAM = ["dataset=imagenet_synthetic", "dataset.size=16", "dataset.classes=4", "dataset.train_images=160"]
STREAM += [
    "dataset.test_images=16",
    "recipe.min_crop_area=0.1",
    "recipe.crop_padding=0",
    "recipe.batch_size=16",
]
STREAM += ["recipe.epochs=3", "evaluation.corruptions=false", "method=damp", "devices=2"]
"""Each of the processes has loader processes for its images."""


def wait(run: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 150
    while not condition():
        assert run.poll() is None, run.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def steps(folder: Path) -> int:
    """How many steps the running cell's checkpoint has."""
    for path in (folder / "runs" / "work").glob("*/checkpoint.pt"):
        try:
            return int(torch.load(path)["progress"]["step"])
        except (OSError, RuntimeError):  # just being renamed
            continue
    return 0


def ranks(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that train, in the order of their start."""
    children = psutil.Process(run.pid).children()
    found = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    return sorted(found, key=psutil.Process.create_time)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, object]]]:
    """The card of two processes that nothing happens to, and their data folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run = start(folder, *COMMAND, *STREAM)
    _, errors = run.communicate(timeout=170)
    assert run.returncode == 0, errors
    assert errors.splitlines()[-1].startswith("weightaug: damp"), errors
    yield folder / "data", json.loads(next((folder / "runs" / "cards").glob("*.json")).read_text())


def test_stopped_and_then_killed_it_ends_with_the_same_bits(
    undisturbed: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    data, expected = undisturbed
    command = [*COMMAND, *STREAM, f"data={data}"]
    run = start(tmp_path, *command)
    wait(run, lambda: steps(tmp_path) > 2)
    run.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 143
    assert time.monotonic() - asked < STOP_SECONDS  # nobody had to be killed
    assert errors.splitlines()[-1] == (
        "weightaug: stopped; what was finished is kept, the same command goes on from here"
    )
    reached = steps(tmp_path)
    assert 2 < reached < 28
    run = start(tmp_path, *command)
    wait(run, lambda: steps(tmp_path) > reached + 2)
    os.kill(ranks(run)[-1].pid, signal.SIGKILL)
    _, errors = run.communicate(timeout=170)
    assert run.returncode == 0, errors
    assert "of 2 was killed (SIGKILL); it goes on from its checkpoint" in errors
    card = json.loads(next((tmp_path / "runs" / "cards").glob("*.json")).read_text())
    assert card["provenance"]["devices"] == 2
    assert card["cost"]["resumed"] == 2
    for key in ("id", "curve", "weights", "metrics"):
        assert card[key] == expected[key], key


def test_the_first_of_several_machines_alone_tells_and_writes(tmp_path: Path) -> None:
    folders = (tmp_path / "a", tmp_path / "b")
    for folder in folders:
        folder.mkdir()
    commands = [
        [*COMMAND, "dataset.corruptions={}", *more]
        for more in (["recipe.batch_size=65"], ["recipe.epochs=1"])
    ]
    first, second = on_machines(folders, *commands)
    refused = "recipe.batch_size=65 can't be divided by devices=2; use devices=5 or 13"
    assert first[0] == [2, "", f"weightaug: error: {refused}\n"]
    assert first[1][0] == 0, first
    assert "card: runs/cards/" in first[1][1]
    assert second == [[2, "", ""], [0, "", ""]]
    assert list(folders[1].iterdir()) == []
    card = json.loads(next((folders[0] / "runs" / "cards").glob("*.json")).read_text())
    assert card["provenance"]["devices"] == 2


def test_nothing_is_made_for_what_is_refused(weightaug: CommandLine) -> None:
    for command in (("run",), ("reproduce", "damp/table1", "--scale", "smoke")):
        done = weightaug(
            *command, "device=cpu", "devices=3", "method=damp" if command == ("run",) else "seed=0"
        )
        assert done.returncode == 2
    assert list(Path().iterdir()) == []


def test_bad_input_is_one_line(weightaug: CommandLine) -> None:
    for settings, message in (
        (["method=damp", "devices=16"], "devices=16 is more than method.sub_batches=8"),
        (["accumulate=2"], "accumulate=2: BatchNorm takes its statistics over the whole batch"),
    ):
        done = weightaug("run", "device=cpu", *settings)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.startswith(f"weightaug: error: {message}")


def test_how_processes_ended(tmp_path: Path) -> None:
    """Whose fault is told: a setting's, a death, then the first error, whatever the others say of it."""
    ends = tmp_path
    with pytest.raises(ProcessError, match="process 1 of 2 ended with exit code 3"):
        _raise_for([0, 3], ends)
    report = {
        "rank": 1,
        "time": 2.0,
        "kind": "RuntimeError",
        "error": "RuntimeError: lost",
        "details": "where",
    }
    (ends / "1.json").write_text(json.dumps(report))
    with pytest.raises(KilledError, match=r"process 0 of 2 was killed \(SIGKILL\)"):
        _raise_for([-9, 1], ends)
    with pytest.raises(Interrupted) as raised:
        _raise_for([143, 1], ends)
    assert raised.value.exit_code == 143
    (ends / "0.json").write_text(json.dumps(report | {"rank": 0, "time": 1.0, "error": "ValueError: no"}))
    with pytest.raises(ProcessError, match="process 0 of 2: ValueError: no\nwhere"):
        _raise_for([1, 1], ends)
    for kind in (
        UserError,
        PassingError,
        DiskError,
        LeaseLostError,
    ):  # it decides whether the cell is tried again
        told = {"kind": _kind(kind("use less")), "error": "use less"}
        (ends / "0.json").write_text(json.dumps(report | told))
        with pytest.raises(kind, match=r"^use less$") as found:
            _raise_for([2, -9], ends)
        assert found.type is kind
    _raise_for([0, 0], tmp_path / "nothing")


def test_gpus_and_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert Runtime(devices=8).resolve_device() == "cuda"
    assert Runtime(devices=2).worker_count("cuda") == 4
    assert Runtime(devices=2, device="cuda:5").worker_count("cuda:5") == 1
    for settings, message in (
        ({"devices": 9}, "devices=9 takes 9 GPUs, and there are 8; use fewer, or torchrun"),
        ({"devices": 4, "workers": 3}, "devices=4 workers=3 takes 12 GPUs, and there are 8"),
        ({"devices": 4, "device": "cuda:5"}, "devices=4 takes 4 GPUs, and there are 3"),
    ):
        with pytest.raises(UserError, match=message):
            Runtime(**settings).resolve_device()  # type: ignore[arg-type]
    assert [device_of("cuda:2", rank) for rank in (0, 3)] == ["cuda:2", "cuda:5"]
    assert device_of("cpu", 3) == "cpu"
    whole = cores()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert cores() == max(1, whole // 2)
    with pytest.raises(UserError, match="both must be at least 1"):
        Runtime(devices=0)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match="devices=2, but torchrun has started 4 processes"):
        Runtime(devices=2)
    assert Runtime(devices=4).devices == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert Runtime().resolve_device() == "cuda"  # of the four processes elsewhere the devices are others
    with pytest.raises(
        UserError, match="has started 8 processes on this machine, and there are 5 GPUs for them"
    ):
        Runtime(device="cuda:3").resolve_device()


def test_processes_with_and_without_a_gpu_do_not_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As device=auto gives them where torchrun has started them on machines of both kinds."""

    class Mixed(Processes):
        def gather(self, value: Any) -> list[Any]:
            return [value, "cpu"] if value == "cuda" else [value]

    cell, runtime = load([f"store={tmp_path / 'runs'}"])
    with pytest.raises(UserError, match="some of the processes have a GPU and some have none"):
        _trained(cell, runtime, "cuda", Mixed())
    assert list(tmp_path.iterdir()) == []


def test_processes_with_other_code_or_another_plugin_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single, "code", lambda: Code("aaaa", {"mine": "1111"}))
    cell, runtime = load([f"store={tmp_path / 'runs'}"])
    for code, told in (
        (Code("bbbb"), r"code aaaa\); .*code bbbb\); run the same"),
        (Code("aaaa", {"mine": "2222"}), r"code aaaa\); plug-in mine; run the same"),
    ):

        class Mixed(Processes):
            def gather(self, value: Any, code: Code = code) -> list[Any]:
                return [value, code.record()] if isinstance(value, dict) else [value]

        with pytest.raises(UserError, match=f"the processes run different code: .*{told}"):
            _trained(cell, runtime, "cpu", Mixed())
    assert list(tmp_path.iterdir()) == []


def test_times_of_other_numbers_of_devices_are_not_compared() -> None:
    card = {"device": "cuda", "hardware": {"gpu": "H200"}}
    assert machine(card) == machine(card | {"devices": 1}) != machine(card | {"devices": 8})
