"""Worker processes: each takes the next cell that nobody else has, until all are done.

Workers meet in the card store alone, so several commands on the same table share the work, and a worker that dies
leaves a lock that the system frees and a checkpoint that the next one continues from.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from threading import Thread

from benchmarks import interruption, processor
from benchmarks.cell import Cell
from benchmarks.errors import UserError, one_line
from benchmarks.results.store import Store
from benchmarks.runtime import Runtime, torchrun_processes

WAIT_SECONDS = 0.5
STOP_SECONDS = 30.0
"""So long a worker may take to end with a checkpoint."""


def start(
    cells: Sequence[Cell], runtime: Runtime, device: str, group: str, command: str, session: str
) -> list[BaseProcess]:
    """Start the worker processes for ``cells``. Each ends when every cell is finished or has failed."""
    from benchmarks.launch.devices import device_of

    if torchrun_processes() > 1:
        raise UserError(
            "torchrun trains one cell, with `weightaug run`; a table's cells meet in the store alone"
        )
    context = multiprocessing.get_context("spawn")
    store = Store(runtime.store_folder)
    todo = sum(1 for cell in cells if not store.has(cell.id))
    processes: list[BaseProcess] = []
    for number in range(min(runtime.worker_count(device), todo)):
        own = device if runtime.devices == 1 else device_of(device, number * runtime.devices)
        arguments = (list(cells), runtime, own, group, command, session, os.getpid())
        process = context.Process(target=work, args=arguments, daemon=True)
        process.start()
        processes.append(process)
    return processes


@contextmanager
def attended(processes: Sequence[BaseProcess]) -> Iterator[None]:
    """If the context is left early, as by Ctrl-C, the workers are told to end and waited for, but not for ever."""
    try:
        yield
    except BaseException:
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        try:
            for process in processes:
                process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for process in processes:
                process.kill()
        raise


def work(
    cells: Sequence[Cell], runtime: Runtime, device: str, group: str, command: str, session: str, parent: int
) -> None:
    """The life of one worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends the workers
    try:
        with interruption.handled(signal.SIGTERM):
            _work(cells, runtime, device, group, command, session, parent)
    except interruption.Interrupted as stop:
        sys.exit(stop.exit_code)


def _work(
    cells: Sequence[Cell], runtime: Runtime, device: str, group: str, command: str, session: str, parent: int
) -> None:
    multiprocessing.current_process().daemon = False  # may start processes, which load streams
    Thread(target=_end_with, args=(parent,), daemon=True).start()
    processor.set_up(runtime.thread_count(device))
    store = Store(runtime.store_folder)
    while True:
        waiting = [
            cell
            for cell in cells
            if not store.has(cell.id) and store.failure(cell.id).get("session") != session
        ]
        if not waiting:
            return
        if not any(_try(cell, runtime, device, store, group, command, session) for cell in waiting):
            time.sleep(WAIT_SECONDS * (0.5 + random.random()))


def _try(
    cell: Cell, runtime: Runtime, device: str, store: Store, group: str, command: str, session: str
) -> bool:
    """Run ``cell`` if nobody else has it; True if it was run. A failure is kept beside its checkpoint."""
    from benchmarks.launch.devices import run_on_devices

    with store.claim(cell.id) as heartbeat:
        if heartbeat is None or store.has(cell.id) or store.failure(cell.id).get("session") == session:
            return False
        try:
            run_on_devices(cell, runtime, device, store, heartbeat, group, command)
        except UserError as error:
            store.fail(cell.id, session, str(error), "")
        except Exception as error:  # one failing cell does not take the table with it
            summary = f"{type(error).__name__}: {one_line(error)}"
            store.fail(cell.id, session, summary, traceback.format_exc())
        return True


def _end_with(parent: int) -> None:
    """End this process, with a checkpoint, when its parent is gone, also when the parent was killed."""
    while os.getppid() == parent:
        time.sleep(WAIT_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)
