"""Who starts the workers: settings, errors of one line, and GPUs. The engines themselves: tests/engines."""

from __future__ import annotations

import os
import pickle
import re
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from command_line import CommandLine

from benchmarks.config import load
from benchmarks.errors import UserError
from benchmarks.launch import group
from benchmarks.launch.group import attended
from benchmarks.launch.launcher import Launcher, Work, asked_device
from benchmarks.launch.launchers import local
from benchmarks.launch.launchers.local import Local
from benchmarks.launch.launchers.ray import Ray
from benchmarks.launch.launchers.slurm import Slurm
from benchmarks.results.store import Store
from benchmarks.runtime import Runtime


def test_a_launcher_is_no_part_of_a_cell_and_its_settings_are_typed() -> None:
    plain, runtime = load([])
    assert isinstance(runtime.launcher.build(), Local)
    settings = [
        "launcher=slurm",
        "launcher.partition=gpu",
        "launcher.time=90",
        "launcher.options.account=mine",
    ]
    cell, runtime = load(settings)
    assert cell == plain
    slurm = runtime.launcher.build()
    assert isinstance(slurm, Slurm)
    assert (slurm.partition, slurm.time, slurm.options) == ("gpu", 90, {"account": "mine"})
    ray = load(["launcher=ray", "launcher.gpus_per_worker=0.25"])[1].launcher.build()
    assert isinstance(ray, Ray)
    assert ray.gpus == 0.25
    with pytest.raises(UserError, match=r"unknown key of launcher 'tme'; did you mean 'time'"):
        load(["launcher=slurm", "launcher.tme=5"])
    with pytest.raises(UserError, match=r"launcher: time must be a whole number"):
        load(["launcher=slurm", "launcher.time=long"])
    with pytest.raises(UserError, match=r"unknown launcher 'slrum'; did you mean 'slurm'"):
        load(["launcher=slrum"])


@pytest.mark.parametrize(
    ("device", "gpus", "there", "answer"),
    [
        ("auto", None, False, ("cpu", 0.0)),
        ("auto", None, True, ("cuda", 1.0)),
        ("auto", 0, True, ("cpu", 0.0)),
        ("auto", 0.5, True, ("cuda", 0.5)),
        ("cuda", None, False, ("cuda", 1.0)),
        ("cpu", None, True, ("cpu", 0.0)),
        ("cuda", 0, True, "above 0"),
        ("cpu", 1, True, "uses no GPU"),
        ("cuda:1", None, True, "use device=cuda"),
    ],
)
def test_what_device_workers_elsewhere_have(
    device: str, gpus: float | None, there: bool, answer: tuple[str, float] | str
) -> None:
    if isinstance(answer, str):
        with pytest.raises(UserError, match=answer):
            asked_device(Runtime(device=device), gpus, there)
    else:
        assert asked_device(Runtime(device=device), gpus, there) == answer


def work_in(folder: Path, device: str = "cpu", *settings: str) -> Work:
    cell, runtime = load([f"store={folder}", *settings])
    return Work((cell,), runtime, device, 1, "group", "command")


@dataclass(frozen=True)
class Look(Work):
    """Instead of working, each worker leaves which GPUs it sees."""

    def do(self) -> None:
        (self.runtime.store_folder / str(os.getpid())).write_text(os.environ.get(local.VISIBLE, "none"))


def test_each_local_worker_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(local.VISIBLE, "4, 7")
    for device, expected in (("cuda", ["4", "4", "7"]), ("cuda:1", ["4, 7"] * 3)):
        folder = tmp_path / device
        folder.mkdir()
        here = Local()
        here.start(Look(**vars(work_in(folder, device))), 3)
        while here.alive():
            time.sleep(0.02)
        assert here.ended() == "exit codes 0"
        assert sorted(path.read_text() for path in folder.iterdir()) == expected


def test_a_worker_that_others_pay_for_does_not_wait_for_the_last_cell(tmp_path: Path) -> None:
    work = replace(work_in(tmp_path), idle_seconds=0.2)
    with Store(tmp_path).claim(work.cells[0].id) as heartbeat:
        assert heartbeat is not None
        work.do()  # ends though the cell is not finished
    assert not Store(tmp_path).has(work.cells[0].id)


def test_folders_are_absolute_for_processes_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEIGHTAUG_DATA", "images")
    there = work_in(Path("runs")).elsewhere()
    folders = (there.runtime.store, there.runtime.data, there.runtime.cache)
    assert folders == tuple(str(tmp_path / name) for name in ("runs", "images", "images/.cache"))
    assert there.idle_seconds == 3 * there.runtime.lease_seconds
    (here := tmp_path / "here").mkdir()
    (here / "one").symlink_to("other")  # which may lead elsewhere on another machine
    monkeypatch.chdir(here)
    there = work_in(Path("runs"), "cpu", "data=../images", "cache=one/cache").elsewhere()
    folders = (there.runtime.store, there.runtime.data, there.runtime.cache)
    assert folders == (str(here / "runs"), str(here / "../images"), str(here / "one/cache"))


def test_own_images_are_found_by_processes_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in ("here", "elsewhere"):
        (tmp_path / folder).mkdir()
    images = np.arange(24 * 64, dtype=np.uint8).reshape(24, 1, 8, 8)
    np.savez(tmp_path / "here" / "own.npz", images=images, labels=np.arange(24) % 2)
    monkeypatch.chdir(tmp_path / "here")
    work = work_in(Path("runs"), "cpu", "dataset=tensors", "dataset.path=own.npz", "cache=cache")
    there = pickle.loads(pickle.dumps(work.elsewhere()))
    monkeypatch.chdir(tmp_path / "elsewhere")
    (cell,) = there.cells
    assert (cell.id, cell.as_dict()) == (work.cells[0].id, work.cells[0].as_dict())
    assert cell.dataset.build({"cache": there.runtime.cache_folder}).counts == (20, 4)
    assert not list((tmp_path / "elsewhere").iterdir())


class Slow(Launcher):
    """Its workers need some looks to end."""

    def __init__(self, looks: int) -> None:
        self.looks, self.calls = looks, [""]

    def prepare(self, runtime: Runtime) -> str:
        return "cpu"

    def worker_count(self, runtime: Runtime, device: str, cells: int) -> int:
        return 1

    def thread_count(self, runtime: Runtime, device: str) -> int:
        return 1

    def start(self, work: Work, count: int) -> None:
        self.calls.append("start")

    def alive(self) -> bool:
        self.looks -= 1
        return self.looks >= 0

    def stop(self) -> None:
        self.calls.append("stop")

    def kill(self) -> None:
        self.calls.append(f"kill, {self.looks} left")

    def ended(self) -> str:
        return ""


@pytest.mark.parametrize(("looks", "last"), [(3, "kill, -1 left"), (10**9, "kill, ")])
def test_workers_that_are_stopped_have_some_time(
    looks: int, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "STOP_SECONDS", 0.2)
    monkeypatch.setattr(group, "POLL_SECONDS", 0.01)
    slow = Slow(looks)
    with pytest.raises(KeyboardInterrupt), attended(slow):
        raise KeyboardInterrupt
    assert slow.calls[1] == "stop"
    assert slow.calls[2].startswith(last)


TABLE = ["reproduce", "damp/table2", "--scale", "smoke", "device=cpu"]


def error_of(weightaug: CommandLine, *settings: str) -> str:
    """The one line that the command says, having done nothing."""
    done = weightaug(*TABLE, *settings)
    assert done.returncode == 2
    assert not Path("runs").exists()
    (line,) = done.stderr.splitlines()
    return str(line.removeprefix("weightaug: error: "))


def test_one_cell_is_trained_here(weightaug: CommandLine) -> None:
    done = weightaug("run", "launcher=ray")
    assert (done.returncode, done.stdout) == (2, "")
    assert "use `weightaug reproduce`" in done.stderr


def test_launchers_are_listed(weightaug: CommandLine) -> None:
    listed = weightaug("list", "launchers").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["local", "ray", "slurm"]


def test_missing_packages_name_the_extra(weightaug: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    for extra, package in (("ray", "ray"), ("slurm", "submitit")):
        monkeypatch.setitem(sys.modules, package, None)
        assert f"pip install 'weightaug[{extra}]'" in error_of(weightaug, f"launcher={extra}")


def test_a_ray_that_can_not_be_reached_or_is_too_small(weightaug: CommandLine) -> None:
    said = error_of(weightaug, "launcher=ray", "launcher.address=127.0.0.1:9")
    assert said.startswith("no Ray cluster at launcher.address=127.0.0.1:9: ")
    assert said.endswith(
        "start one there (`ray start --head`) or have one started here (launcher.address=local)"
    )
    assert "Invalid address" in error_of(weightaug, "launcher=ray", "launcher.address=nowhere")
    assert "99 CPUs" in error_of(weightaug, "launcher=ray", "launcher.cpus_per_worker=99")
    assert "not be negative" in error_of(weightaug, "launcher=ray", "launcher.retries=-1")
    assert "or whole ones" in error_of(weightaug, "launcher=ray", "launcher.gpus_per_worker=1.5")


def test_what_listens_there_must_be_ray(weightaug: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself would try for minutes, and tell of each try on lines of its own."""
    with socket.create_server(("", 0)) as stranger:
        address = f"127.0.0.1:{stranger.getsockname()[1]}"

        def answer() -> None:
            for reply in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"):
                with stranger.accept()[0] as talk:
                    talk.recv(9)
                    talk.sendall(reply)

        thread = Thread(target=answer, daemon=True)
        thread.start()
        assert "is no Ray; start" in error_of(weightaug, "launcher=ray", f"launcher.address={address}")
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert "is no Ray; start" in error_of(weightaug, "launcher=ray", "launcher.address=auto")
        thread.join(10)


@pytest.mark.parametrize(
    ("cpus", "gpus", "room"),
    [(1, 0, 12), (0, 1, 5), (1, 0.5, 10), (1, 0.4, 10), (1, 0.3, 11), (2, 0.3, 6), (1, 2, 2), (1, 4, 1)],
)
def test_how_many_workers_a_ray_has_room_for(cpus: float, gpus: float, room: int) -> None:
    ray = Ray(cpus_per_worker=cpus, gpus_per_worker=gpus)
    ray._nodes = [{"CPU": 8, "GPU": 4}, {"CPU": 4, "GPU": 1}]
    assert ray._room() == room


Programs = Callable[..., None]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Makes programs in the place of Slurm's, each a line of the shell."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(**lines: str) -> None:
        for name, line in {
            "sbatch": ":",
            "srun": ":",
            "scancel": ":",
            "sinfo": "echo '(null)'",
            **lines,
        }.items():
            (folder / name).write_text(f"#!/bin/sh\n{line}\n")
            (folder / name).chmod(0o755)

    return make


PARTITIONS = "echo 'PartitionName=cpu X=1'; echo 'PartitionName=gpu X=1'"


def test_a_slurm_that_can_not_be_used(weightaug: CommandLine, programs: Programs) -> None:
    assert "there is no sbatch here" in error_of(weightaug, "launcher=slurm")
    down = (
        "echo 'slurm_load_partitions error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
    )
    programs(scontrol=down)
    said = error_of(weightaug, "launcher=slurm")
    assert said.startswith(
        "Slurm can't be used: Unable to contact slurm controller (connect failure); give the"
    )
    tries = "scontrol: error: cannot stat file, retrying", "scontrol: fatal: Could not establish a source"
    programs(scontrol=f"echo '{tries[0]}' >&2; echo '{tries[1]}' >&2; exit 1")
    said = error_of(weightaug, "launcher=slurm")
    assert said.startswith("Slurm can't be used: Could not establish a source; give the command on a machine")
    programs(scontrol=PARTITIONS)
    said = error_of(weightaug, "launcher=slurm", "launcher.partition=gqu")
    assert "unknown partition of Slurm 'gqu'; did you mean 'gpu'" in said


def test_what_sbatch_refuses_is_told_in_its_words(weightaug: CommandLine, programs: Programs) -> None:
    refusal = (
        "sbatch: error: Projects need an account",
        "sbatch: error: Batch job submission failed: Unspecified",
    )
    programs(scontrol=PARTITIONS, sbatch=f"echo '{refusal[0]}' >&2; echo '{refusal[1]}' >&2; exit 1")
    done = weightaug(*TABLE[:-1], "launcher=slurm", "--seeds", "1")  # without a word on the device
    assert done.returncode == 2
    start, last = done.stderr.splitlines()
    assert "16 worker(s) on cpu" in start
    said = "Projects need an account; Batch job submission failed: Unspecified"
    assert last == f"weightaug: error: Slurm takes no jobs: {said}"


@pytest.mark.parametrize(
    ("said", "alive", "ended"),
    [
        ("echo 'JobId=7 JobState=PENDING Reason=Priority ExitCode=0:0'", True, "PENDING"),
        ("echo 'JobId=7 JobState=COMPLETED ExitCode=0:0'", False, r"COMPLETED \(exit code 0:0\)"),
        ("echo 'JobId=7 JobState=TIMEOUT ExitCode=0:1'; echo 'JobId=8 JobState=RUNNING'", True, "TIMEOUT"),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", False, "forgotten"),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", True, "PENDING"),
    ],
)
def test_whether_jobs_live_is_what_slurm_says(said: str, alive: bool, ended: str, programs: Programs) -> None:
    programs(scontrol=said)
    slurm = Slurm()
    slurm._job = "7"
    assert slurm.alive() is alive
    assert re.search(ended, slurm.ended())


def test_a_job_goes_back_into_the_queue_only_if_nobody_else_does_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from benchmarks.launch.launchers import slurm

    asked: list[Any] = []

    def ask(state: str) -> Callable[..., str]:
        return lambda *command: (asked.append(command[1]), f"JobId=7 JobState={state} Reason=None")[1]

    monkeypatch.setenv("SLURM_JOB_ID", "7")
    cases = [("RUNNING", 0, True), ("RUNNING", 3, False), ("PENDING", 0, False), ("CANCELLED", 0, False)]
    for state, before, back in cases:
        asked.clear()
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(before))
        monkeypatch.setattr(slurm, "_ask", ask(state))
        slurm._go_back(retries=3)
        assert ("requeue" in asked) is back, (state, before)
