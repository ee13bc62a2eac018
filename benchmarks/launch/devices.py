"""One cell on several devices: a process for each, started here or, on several machines, by torchrun."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import psutil
import torch

from benchmarks import interruption, processor
from benchmarks.cell import Cell
from benchmarks.errors import PassingError, UserError, one_line
from benchmarks.launch.group import POLL_SECONDS, Group, attended, end_with
from benchmarks.launch.run_cell import run_cell
from benchmarks.results.card import Card
from benchmarks.results.disk import DiskError
from benchmarks.results.heartbeat import Heartbeat
from benchmarks.results.lease import LeaseLostError
from benchmarks.results.store import Store
from benchmarks.results.unseen import Unseen
from benchmarks.runtime import Runtime, torchrun_processes
from benchmarks.terminal import note
from benchmarks.training.processes import ALONE, Processes, joined

SETTLE_SECONDS = 1.0
"""So long after one process has failed the others may tell what they have seen of it."""
RETRIES = 2
"""So often a cell goes on from its checkpoint after one of its processes was killed."""


OF_PERSONS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (DiskError, LeaseLostError, PassingError, UserError)
}
"""Errors that keep their kind on the way from a process: whether a cell is tried again depends on it."""


class ProcessError(Exception):
    """What went wrong in one of the processes; further lines are its traceback."""


class KilledError(Exception):
    """One of the processes was killed."""


class Reporter:
    """What a process that holds no claim itself has in the place of a :class:`Heartbeat`.

    Args:
        holder: leads to the process that holds the claim; None in those that write nothing.
        shared: the fraction that is done, for that process.
    """

    def __init__(self, holder: Connection | None = None, shared: Any = None) -> None:
        self._holder, self._shared = holder, shared
        self.peak_memory = 0

    def check(self) -> None:
        """See :meth:`Heartbeat.check`."""
        if self._holder is None:
            return
        self._holder.send(None)
        if error := self._holder.recv():
            raise error

    @property
    def fraction(self) -> float:
        return 0.0 if self._shared is None else float(self._shared.value)

    @fraction.setter
    def fraction(self, value: float) -> None:
        if self._shared is not None:
            self._shared.value = value

    def watch_memory(self) -> int:
        self.peak_memory = max(self.peak_memory, psutil.Process().memory_info().rss)
        return self.peak_memory


def run_on_devices(
    cell: Cell, runtime: Runtime, device: str, store: Store, heartbeat: Heartbeat, group: str, command: str
) -> Card:
    """:func:`benchmarks.launch.run_cell.run_cell` in this process, or in one for each of ``runtime.devices``.

    Args:
        device: the first of them.

    Raises:
        UserError: what one of the processes found; or one was killed again and again.
        ProcessError: an error in one of them.
    """
    if runtime.devices == 1:
        return cast(Card, run_cell(cell, runtime, device, store, heartbeat, group, command))
    for left in reversed(range(RETRIES + 1)):
        try:
            _run(cell, runtime, device, heartbeat, group, command)
            return cast(Card, store.read(cell.id, cell))
        except KilledError as error:
            if not left:
                raise PassingError(
                    f"{error}, {RETRIES + 1} times; perhaps the machine's memory does not suffice. The same command "
                    "goes on from the checkpoint"
                ) from error
            note(f"{cell.label}: {error}; it goes on from its checkpoint")
    raise AssertionError


def _run(cell: Cell, runtime: Runtime, device: str, heartbeat: Heartbeat, group: str, command: str) -> None:
    """Start the processes and wait for them; if one fails the others are ended."""
    os.environ.setdefault(
        "TORCH_CPP_LOG_LEVEL", "ERROR"
    )  # DistributedDataParallel warns of its safer setting
    context = multiprocessing.get_context("spawn")
    fraction = context.Value("d", heartbeat.fraction)
    threads = runtime.threads or max(1, torch.get_num_threads() // runtime.devices)
    asked, asking = context.Pipe()
    with tempfile.TemporaryDirectory(prefix="weightaug-") as folder:
        arguments = (folder, cell, runtime, device, threads, group, command, os.getpid())
        own = [(asking, fraction), *[(None, None)] * (runtime.devices - 1)]
        processes = Group(
            [
                context.Process(target=_life, args=(rank, *arguments, *own[rank]))
                for rank in range(runtime.devices)
            ]
        )
        with attended(processes, lambda: _answer(asked, heartbeat)):  # they write a last checkpoint
            processes.start()
            while processes.alive():
                heartbeat.fraction = fraction.value
                if any(processes.exit_codes):
                    time.sleep(SETTLE_SECONDS)
                    break
                _answer(asked, heartbeat, POLL_SECONDS)
            _raise_for(processes.exit_codes, Path(folder))


def _answer(asked: Connection, heartbeat: Heartbeat, seconds: float = 0.0) -> None:
    """Tell the process that is about to write whether the claim still holds, if it asks within some seconds."""
    if not asked.poll(seconds):
        return
    asked.recv()
    try:
        heartbeat.check()
    except (LeaseLostError, OSError) as error:  # the store may be away for a while: no reason to end
        asked.send(error)
        if isinstance(error, LeaseLostError):
            raise
    else:
        asked.send(None)


def _raise_for(codes: Sequence[int | None], folder: Path) -> None:
    """The error that explains how processes ended: a person's, a death, or else the first that was reported."""
    reports = sorted(
        (json.loads(path.read_text()) for path in folder.glob("*.json")), key=lambda r: r["time"]
    )
    for report in reports:
        if kind := OF_PERSONS.get(report["kind"]):
            raise kind(report["error"])
    for rank, code in enumerate(codes):
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            raise KilledError(f"process {rank} of {len(codes)} was killed ({name})")
    for code in codes:
        if code is not None and code > 128:
            raise interruption.Interrupted(code - 128)
    for report in reports:
        raise ProcessError(
            f"process {report['rank']} of {len(codes)}: {report['error']}\n{report['details']}"
        )
    for rank, code in enumerate(codes):
        if code:
            raise ProcessError(f"process {rank} of {len(codes)} ended with exit code {code}")


def _kind(error: Exception) -> str:
    """The nearest of :data:`OF_PERSONS`, or the error's own kind."""
    names = [kind.__name__ for kind in type(error).__mro__]
    return next((name for name in names if name in OF_PERSONS), names[0])


def _life(
    rank: int, folder: str, cell: Cell, runtime: Runtime, device: str, threads: int, group: str, command: str,
    parent: int, holder: Connection | None, fraction: Any,
) -> None:  # fmt: skip
    """The life of the process ``rank``."""
    for number in (
        signal.SIGINT,
        signal.SIGUSR2,
    ):  # Ctrl-C, Slurm: the parent gets them and ends the processes
        signal.signal(number, signal.SIG_IGN)
    os.environ["LOCAL_WORLD_SIZE"] = str(runtime.devices)  # as torchrun says it: they share the cores
    own = device_of(device, rank)

    def report(error: Exception, summary: str) -> None:
        content = {"rank": rank, "time": time.time(), "kind": _kind(error), "error": summary}
        path = Path(folder) / f"{rank}.json"
        path.with_suffix(".new").write_text(json.dumps({**content, "details": traceback.format_exc()}))
        path.with_suffix(".new").replace(path)

    try:
        with interruption.handled(signal.SIGTERM):
            end_with(parent)
            processor.set_up(threads)
            store = Store.of(runtime) if rank == 0 else Unseen(runtime.store_folder)
            beat = Reporter(holder, fraction)
            with joined(rank, runtime.devices, f"file://{folder}/meeting") as processes:
                run_cell(cell, runtime, own, store, beat, group, command, processes.on(own))
    except interruption.Interrupted as stop:
        sys.exit(stop.exit_code)
    except UserError as error:
        report(error, str(error))
        sys.exit(2)
    except Exception as error:
        report(error, f"{type(error).__name__}: {one_line(error)}")
        sys.exit(1)


def device_of(first: str, rank: int) -> str:
    """The device of the process ``rank`` on a machine where that of process 0 is ``first``."""
    kind, _, index = first.partition(":")
    return f"{kind}:{int(index or 0) + rank}" if kind == "cuda" else first


@contextmanager
def torchrun() -> Iterator[Processes]:
    """This process as one of those that torchrun has started; alone where there was no torchrun."""
    count = torchrun_processes()
    if count == 1:
        yield ALONE
        return
    with joined(int(os.environ["RANK"]), count) as processes:
        yield processes
