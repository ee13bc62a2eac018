"""The life of a worker: it takes the next cell that nobody else has, until all are done.

Workers meet in the card store alone, so several commands on the same table share the work, and a worker that dies
leaves a lock that the system frees and a checkpoint that the next one continues from. Their processes are started by
a launcher, see :mod:`benchmarks.launch.launcher`.
"""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Sequence

from benchmarks import processor
from benchmarks.cell import Cell
from benchmarks.errors import UserError, one_line
from benchmarks.results.store import Store
from benchmarks.runtime import Runtime

WAIT_SECONDS = 0.5
STOP_SECONDS = 30.0
"""So long a worker may take to end with a checkpoint."""


def work(
    cells: Sequence[Cell],
    runtime: Runtime,
    device: str,
    threads: int,
    group: str,
    command: str,
    session: str,
    idle_seconds: float,
) -> None:
    """The life of one worker, in the process that a launcher has started for it.

    Args:
        idle_seconds: it also ends when all that is left has been with others for so long.
    """
    processor.set_up(threads)
    busy = time.monotonic()
    store = Store(runtime.store_folder)
    while True:
        waiting = [
            cell
            for cell in cells
            if not store.has(cell.id) and store.failure(cell.id).get("session") != session
        ]
        if not waiting:
            return
        if any(_try(cell, runtime, device, store, group, command, session) for cell in waiting):
            busy = time.monotonic()
        elif time.monotonic() - busy > idle_seconds:
            return
        else:
            time.sleep(WAIT_SECONDS * (0.5 + random.random()))


def _try(
    cell: Cell, runtime: Runtime, device: str, store: Store, group: str, command: str, session: str
) -> bool:
    """Run ``cell`` if nobody else has it; True if it was run. A failure is kept beside its checkpoint."""
    from benchmarks.launch.run_cell import run_cell

    with store.claim(cell.id) as heartbeat:
        if heartbeat is None or store.has(cell.id) or store.failure(cell.id).get("session") == session:
            return False
        try:
            run_cell(cell, runtime, device, store, heartbeat, group, command)
        except UserError as error:
            store.fail(cell.id, session, str(error), "")
        except Exception as error:  # one failing cell does not take the table with it
            summary = f"{type(error).__name__}: {one_line(error)}"
            store.fail(cell.id, session, summary, traceback.format_exc())
        return True
