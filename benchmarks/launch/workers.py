"""The life of a worker: it takes the next cell that nobody else has, until all are done.

Workers meet in the card store alone, so several commands on the same table share the work, and a worker that dies
leaves a lease that runs out and a checkpoint that the next one continues from. Their processes are started by
a launcher, see :mod:`benchmarks.launch.launcher`.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence

from benchmarks import processor
from benchmarks.cell import Cell
from benchmarks.errors import PassingError, UserError, one_line
from benchmarks.launch.candidates import Came, Candidates
from benchmarks.results.disk import DiskError
from benchmarks.results.lease import LeaseLostError
from benchmarks.results.store import Store
from benchmarks.runtime import Runtime
from benchmarks.terminal import warn


def work(
    cells: Sequence[Cell],
    runtime: Runtime,
    device: str,
    threads: int,
    group: str,
    command: str,
    idle_seconds: float,
) -> None:
    """The life of one worker, in the process that a launcher has started for it.

    Args:
        idle_seconds: it also ends when all that is left has been with others for so long.
    """
    processor.set_up(threads)
    store = Store.of(runtime)
    by_id = {cell.id: cell for cell in cells}
    candidates = Candidates(list(by_id), store)
    busy = time.monotonic()
    try:
        while candidates:
            cell_id = candidates.next()
            if cell_id is not None:
                try:
                    came = _try(by_id[cell_id], runtime, device, store, group, command)
                except LeaseLostError:  # whoever has it now goes on with it
                    came = Came.BUSY
                candidates.tell(cell_id, came)
                busy = busy if came is Came.BUSY else time.monotonic()
            elif time.monotonic() - busy > idle_seconds:
                return
            else:
                time.sleep(candidates.pause())
    except (UserError, OSError) as error:  # of the store: other cells would meet it, too
        warn(f"a worker ends: {one_line(error)}; what it had begun is kept in {store.folder}")


def _try(cell: Cell, runtime: Runtime, device: str, store: Store, group: str, command: str) -> Came:
    """Run ``cell`` if nobody else has it. A failure is kept beside its checkpoint."""
    from benchmarks.launch.devices import run_on_devices

    with store.claim(cell.id) as heartbeat:
        if heartbeat is None:
            return Came.BUSY
        if store.failures.given_up(cell.id):
            return Came.SETTLED
        try:
            run_on_devices(cell, runtime, device, store, heartbeat, group, command)
        except (LeaseLostError, DiskError):
            raise  # not of the cell
        except Exception as error:  # one failing cell does not take the table with it
            known = isinstance(error, UserError)
            summary = str(error) if known else f"{type(error).__name__}: {one_line(error)}"
            details = "" if known else traceback.format_exc()
            final = known and not isinstance(error, PassingError)
            heartbeat.check()
            store.failures.add(cell.id, summary, details, final)
            return Came.SETTLED if store.failures.given_up(cell.id) else Came.FAILED
        return Came.SETTLED
