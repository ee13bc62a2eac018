"""The life of a worker: it takes the next cell that nobody else has, until all are done.

Workers meet in the card store alone, so several commands on the same table share the work, and a worker that dies
leaves a lease that runs out and a checkpoint that the next one continues from. Their processes are started by
a launcher, see :mod:`benchmarks.launch.launcher`.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence

from benchmarks import processor
from benchmarks.cell import Cell
from benchmarks.errors import PassingError, UserError, one_line
from benchmarks.launch.candidates import Came, Candidates
from benchmarks.results.disk import DiskError
from benchmarks.results.heartbeat import Heartbeat
from benchmarks.results.lease import LeaseLostError
from benchmarks.results.store import Store
from benchmarks.runtime import Runtime
from benchmarks.terminal import warn

Run = Callable[[str, Heartbeat], object]
"""Runs the cell of an id, from its checkpoint if there is one, until it has a card."""


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

    def run(cell_id: str, heartbeat: Heartbeat) -> None:
        from benchmarks.launch.devices import run_on_devices

        run_on_devices(by_id[cell_id], runtime, device, store, heartbeat, group, command)

    try:
        settle(Candidates(list(by_id), store), store, run, idle_seconds)
    except (UserError, OSError) as error:  # of the store: other cells would meet it, too
        warn(f"a worker ends: {one_line(error)}; what it had begun is kept in {store.folder}")


def settle(candidates: Candidates, store: Store, run: Run, idle_seconds: float = float("inf")) -> None:
    """Try one cell after another until all are settled, or for too long with others."""
    busy = store.disk.now()
    while candidates:
        cell_id = candidates.next()
        if cell_id is not None:
            try:
                came = attempt(cell_id, store, run)
            except LeaseLostError:  # whoever has it now goes on with it
                came = Came.BUSY
            candidates.tell(cell_id, came)
            busy = busy if came is Came.BUSY else store.disk.now()
        elif store.disk.now() - busy > idle_seconds:
            return
        else:
            store.disk.wait(candidates.pause())


def attempt(cell_id: str, store: Store, run: Run) -> Came:
    """Run a cell if nobody else has it. A failure is kept beside its checkpoint."""
    with store.claim(cell_id) as heartbeat:
        if heartbeat is None:
            return Came.BUSY
        if store.failures.given_up(cell_id):
            return Came.SETTLED
        try:
            run(cell_id, heartbeat)
        except (LeaseLostError, DiskError):
            raise  # not of the cell
        except Exception as error:  # one failing cell does not take the table with it
            known = isinstance(error, UserError)
            summary = str(error) if known else f"{type(error).__name__}: {one_line(error)}"
            details = "" if known else traceback.format_exc()
            final = known and not isinstance(error, PassingError)
            heartbeat.check()
            store.failures.add(cell_id, summary, details, final)
            return Came.SETTLED if store.failures.given_up(cell_id) else Came.FAILED
        return Came.SETTLED
