"""Worker processes: each takes the next cell that nobody else has, until all are done.

Workers meet in the card store alone, so several commands on the same table share the work, and a worker that dies
leaves a lease that runs out and a checkpoint that the next one continues from.
"""

from __future__ import annotations

import multiprocessing
import os
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
from benchmarks.errors import PassingError, UserError, one_line
from benchmarks.launch.candidates import Came, Candidates
from benchmarks.results.disk import DiskError
from benchmarks.results.lease import LeaseLostError
from benchmarks.results.store import Store
from benchmarks.runtime import Runtime
from benchmarks.terminal import warn

WAIT_SECONDS = 0.5
STOP_SECONDS = 30.0
"""So long a worker may take to end with a checkpoint."""


def start(
    cells: Sequence[Cell], runtime: Runtime, device: str, group: str, command: str, session: str
) -> list[BaseProcess]:
    """Start the worker processes for ``cells``. Each ends when every cell is finished or has failed."""
    context = multiprocessing.get_context("spawn")
    store = Store.of(runtime)
    todo = sum(1 for cell in cells if not store.has(cell.id))
    processes: list[BaseProcess] = []
    for _ in range(min(runtime.worker_count(device), todo)):
        arguments = (list(cells), runtime, device, group, command, session, os.getpid())
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
    store = Store.of(runtime)
    by_id = {cell.id: cell for cell in cells}
    candidates = Candidates(list(by_id), store)
    try:
        while candidates:
            cell_id = candidates.next()
            if cell_id is None:
                time.sleep(candidates.pause())
            else:
                try:
                    came = _try(by_id[cell_id], runtime, device, store, group, command, session)
                except LeaseLostError:  # whoever has it now goes on with it
                    came = Came.BUSY
                candidates.tell(cell_id, came)
    except (UserError, OSError) as error:  # of the store: other cells would meet it, too
        warn(f"a worker ends: {one_line(error)}; what it had begun is kept in {store.folder}")


def _try(
    cell: Cell, runtime: Runtime, device: str, store: Store, group: str, command: str, session: str
) -> Came:
    """Run ``cell`` if nobody else has it. A failure is kept beside its checkpoint."""
    from benchmarks.launch.run_cell import run_cell

    with store.claim(cell.id) as heartbeat:
        if heartbeat is None:
            return Came.BUSY
        if store.given_up(cell.id):
            return Came.SETTLED
        try:
            run_cell(cell, runtime, device, store, heartbeat, group, command)
        except (LeaseLostError, DiskError):
            raise  # not of the cell
        except Exception as error:  # one failing cell does not take the table with it
            known = isinstance(error, UserError)
            summary = str(error) if known else f"{type(error).__name__}: {one_line(error)}"
            details = "" if known else traceback.format_exc()
            final = known and not isinstance(error, PassingError)
            heartbeat.check()
            store.fail(cell.id, session, summary, details, final)
            return Came.SETTLED if store.given_up(cell.id) else Came.FAILED
        return Came.SETTLED


def _end_with(parent: int) -> None:
    """End this process, with a checkpoint, when its parent is gone, also when the parent was killed."""
    while os.getppid() == parent:
        time.sleep(WAIT_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)
