"""The card store: a folder in which finished cells are cards, and running ones have a lease and a heartbeat.

code.json                 the code whose workers may start cells, see :mod:`benchmarks.results.code`
cards/<id>.json           one finished cell each; appears whole, once, and is never changed
weights/<id>.safetensors  its trained weights, there before the card; none with weights=drop or after divergence
work/<id>/lease/          who may work on the cell, see :mod:`benchmarks.results.lease`
work/<id>/heartbeat.json  who runs the cell, since when, how far; tells others and decides nothing
work/<id>/checkpoint.pt   where to continue; checkpoint.previous.pt where that can't be used
work/<id>/failure.json    each failed try and why, see :mod:`benchmarks.results.failures`
work/<id>/stuck.txt       where it hung, if it did
work/<id>/damaged/        files of it that could not be used; kept, unlike the others, when the cell is finished

`docs/store.md` says what is guaranteed on which file system.
"""

from __future__ import annotations

import json
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.errors import UserError
from benchmarks.results.card import Card, check_card
from benchmarks.results.code import Code, code, other_code
from benchmarks.results.disk import Disk, DiskError
from benchmarks.results.failures import Failures
from benchmarks.results.heartbeat import LOOK_SECONDS, Heartbeat
from benchmarks.results.lease import SECONDS, Lease, LeaseLostError, Leases
from benchmarks.results.reading import read_card

if TYPE_CHECKING:
    from benchmarks.cell import Cell
    from benchmarks.runtime import Runtime

PROBE_BYTES = 65536
"""So much must fit on the disk for a store to be usable."""


class Store:
    """All cards below one folder. Any number of processes on any number of machines may use it at once.

    Args:
        read_only: nothing is made or written, and the folder must be a store already.
        lease_seconds: a worker that gives no sign of life for so long loses its cell to another.
        retries: a cell that has failed is tried so often again before it is given up.
        code: of this process; None: whatever code may write.
        disk, leases: what the folder lies on, and the leases there; the simulation has its own.
    """

    heartbeats: type[Heartbeat] = Heartbeat

    def __init__(
        self,
        folder: Path,
        read_only: bool = False,
        lease_seconds: float = SECONDS,
        retries: int = 0,
        code: Code | None = None,
        disk: Disk | None = None,
        leases: Leases | None = None,
    ) -> None:
        self.folder, self.cards, self.code = folder, folder / "cards", code
        self.disk = disk or Disk()
        self.leases = leases or Leases(self.disk, lease_seconds)
        self.failures = Failures(self.disk, folder / "work", retries)
        if read_only:
            if not self.cards.is_dir():
                raise UserError(
                    f"there is no card store in {folder}; train a table first (weightaug reproduce TABLE), "
                    "or say where its cards are (store=FOLDER)"
                )
            return
        try:
            self.disk.make_folder(self.cards)
            self.disk.make_folder(folder / "work")
            if disk is None:
                with tempfile.TemporaryFile(dir=self.cards) as probe:
                    probe.write(bytes(PROBE_BYTES))  # found out now, not after the training
                    probe.flush()
        except OSError as error:
            raise UserError(
                f"the card store {folder} can't be used: {error.strerror}; choose another (store=FOLDER)"
            ) from error

    @classmethod
    def of(cls, runtime: Runtime) -> Store:
        """The store to write to that a run's settings ask for.

        Raises:
            UserError: it can't be written to, or other code is writing to it.
        """
        mine = code() if runtime.mixed_versions == "refuse" else None
        store = cls(
            runtime.store_folder, lease_seconds=runtime.lease_seconds, retries=runtime.retries, code=mine
        )
        store.enter()
        return store

    def work(self, cell_id: str) -> Path:
        return self.folder / "work" / cell_id

    def card_path(self, cell_id: str) -> Path:
        return self.cards / f"{cell_id}.json"

    def weights(self, cell_id: str) -> Path:
        return self.folder / "weights" / f"{cell_id}.safetensors"

    def has(self, cell_id: str) -> bool:
        return self.disk.exists(self.card_path(cell_id))

    def finished(self) -> set[str]:
        """The ids of all cells that have a card, by one look at the folder."""
        return {name[:-5] for name in self.disk.names(self.cards) if name.endswith(".json")}

    def begun(self) -> set[str]:
        """The ids of all cells that are not finished and that somebody has worked on, likewise."""
        return set(self.disk.names(self.folder / "work"))

    def read(self, cell_id: str, cell: Cell | None = None) -> Card | None:
        """The card of a finished cell, or None. A damaged one is set aside, so that its cell is run again.

        Args:
            cell: the cell itself where it is known; a card that states other settings counts as damaged.
        """
        return read_card(self.card_path(cell_id), cell)

    def write(self, card: Card, check: Callable[[], None] = lambda: None) -> None:
        """Keep a finished cell for good.

        Args:
            check: of the claim, see :meth:`Heartbeat.check`.

        Raises:
            LeaseLostError: another worker has the cell or has finished it; there is never a second card.
        """
        path = self.card_path(check_card(card)["id"])
        text = json.dumps(card, indent=1, sort_keys=True, allow_nan=False) + "\n"
        try:
            self.disk.patiently(path, lambda: self.disk.publish(path, text, check))
        except FileExistsError:
            raise LeaseLostError(f"another worker has finished cell {card['id']}") from None
        except DiskError as error:
            aside = Path(tempfile.gettempdir()) / f"weightaug-{path.name}"
            aside.write_text(text, encoding="utf-8")
            raise DiskError(
                f"{error}; the card lies in {aside}, move it to {path} when there is room"
            ) from error

    def enter(self) -> None:
        """See that nobody works here with other code; the store is this code's then. Called before anything is run.

        Raises:
            UserError: somebody does.
        """
        stated = self._stated_code()
        if self.code is None or (told := self.code.joined(stated)) == stated:
            return
        if stated and self.code.differs(stated) and (busy := self.at_work(self.begun())):
            raise other_code(self.folder, stated, self.code, busy)
        self.disk.write(self.folder / "code.json", json.dumps(told, indent=1) + "\n")

    def _stated_code(self) -> dict[str, Any]:
        return self.disk.facts(self.folder / "code.json", ("digest", "name"))

    def at_work(self, cell_ids: Iterable[str]) -> str | None:
        """Who works on one of the cells. A process of another machine is watched until it moves or its lease ends."""
        watched = {cell_id: self.leases.holder(self.work(cell_id)) for cell_id in cell_ids}
        while True:
            for cell_id, holder in list(watched.items()):
                now = self.leases.holder(self.work(cell_id))
                if now and now != holder:
                    return f"process {now.pid} on {now.host} runs cell {cell_id}"
                if self.leases.free(self.work(cell_id)):
                    del watched[cell_id]
            if not watched:
                return None
            self.disk.wait(LOOK_SECONDS)

    def acquire(self, cell_id: str) -> Lease | None:
        """The lease on a cell that is not finished; None where somebody else has it, or where it is finished.

        Raises:
            UserError: workers with other code have begun to write to the store.
        """
        if self.code and (stated := self._stated_code()) and self.code.differs(stated):
            raise other_code(self.folder, stated, self.code, "it has taken over")
        work = self.work(cell_id)
        lease = self.leases.acquire(work)
        if lease is None:
            return None
        try:
            if self._surely_has(cell_id):
                self.release(cell_id, lease)
                return None
            if lease.before and not self._advanced(cell_id):
                died = f"its worker died: process {lease.before.pid} on {lease.before.host} was killed or crashed"
                self.failures.add(cell_id, died)
        except BaseException:
            lease.release()
            raise
        return lease

    def release(self, cell_id: str, lease: Lease) -> None:
        """Give a lease back; with it goes, where the cell is finished, all that was kept to continue it."""
        finished = not lease.lost and self.has(cell_id)
        if finished:
            self._clear(self.work(cell_id))
        lease.release()
        if finished:
            with suppress(OSError):  # files that were set aside stay
                self.disk.remove_folder(self.work(cell_id))

    @contextmanager
    def claim(self, cell_id: str) -> Iterator[Heartbeat | None]:
        """The exclusive right to run a cell, as its heartbeat; None where somebody else has it or it is finished."""
        lease = self.acquire(cell_id)
        if lease is None:
            yield None
            return
        try:
            checkpoint = self.disk.stamp(self.work(cell_id) / "checkpoint.pt")
            path = self.work(cell_id) / "heartbeat.json"
            with self.heartbeats(path, lease, self.disk, checkpoint=checkpoint) as heartbeat:
                yield heartbeat
        finally:
            self.release(cell_id, lease)

    def _surely_has(self, cell_id: str) -> bool:
        """:meth:`has` that no cache answers: after a change of its own, an NFS client looks at a folder anew."""
        probe = self.cards / f".look-{secrets.token_hex(8)}"
        self.disk.create(probe)
        with suppress(FileNotFoundError):  # an answer that got lost
            self.disk.remove(probe)
        return self.has(cell_id)

    def _advanced(self, cell_id: str) -> bool:
        """Whether the worker that last said something of the cell has written a checkpoint of it."""
        beat = self.disk.facts(self.work(cell_id) / "heartbeat.json", ("checkpoint",))
        return bool(beat) and beat["checkpoint"] != self.disk.stamp(self.work(cell_id) / "checkpoint.pt")

    def _clear(self, work: Path) -> None:
        """Remove what a finished cell leaves, but its lease, and nothing that was set aside."""
        for name in self.disk.names(work):
            if name in ("lease", "damaged"):
                continue
            with suppress(OSError):
                for prepared in self.disk.names(work / name) if name.startswith(".lease-") else ():
                    self.disk.remove(work / name / prepared)
                remove = self.disk.remove_folder if name.startswith(".lease-") else self.disk.remove
                remove(work / name)

    def heartbeat(self, cell_id: str) -> dict[str, Any]:
        """What the process that runs the cell last said of itself; empty where there is none."""
        return self.disk.facts(self.work(cell_id) / "heartbeat.json", ("host", "time", "fraction"))

    def running(self, cell_id: str) -> dict[str, Any]:
        """The heartbeat of a cell that seems to be run, for showing; empty where nobody does, as after a kill.

        One look can't tell whether a process of another machine lives, but for the time since the lease was last
        renewed, which is the server's time against this machine's. Nothing is decided by it.
        """
        holder = self.leases.holder(self.work(cell_id))
        if holder is None or self.leases.surely_dead(holder):
            return {}
        renewed = self.disk.stamp(self.work(cell_id) / "lease")
        if renewed is None or time.time() - renewed / 1e9 > 2 * holder.seconds:
            return {}
        said = self.heartbeat(cell_id)
        return said or {"host": holder.host, "pid": holder.pid, "time": renewed / 1e9, "fraction": 0.0}

    def settled(self, cell_id: str) -> bool:
        """Whether there is nothing to do for a cell: it is finished or given up."""
        return self.has(cell_id) or self.failures.given_up(cell_id) is not None
