"""Leases: the right to work on a folder, held by at most one process, on a shared folder too.

A lease is one empty file in ``FOLDER/lease/`` whose name says who holds it and how often it was renewed:

    <host>.<process>.<machine>.<random>.<seconds>.<beat>

To renew it, its holder renames it to the next beat. To take it over, somebody else renames the very name that it has
seen unchanged for longer than those seconds, by its own clock. Both are the same operation of the file server on the
same name, so only one of them succeeds: whoever looks at an old view of the folder fails, a holder that was paused
finds out at its next beat that it holds nothing any more, and no two clocks are ever compared. The folder ``lease``
appears with its first holder in it, by renaming a folder prepared aside, which fails where there is one.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import psutil

from benchmarks.errors import UserError
from benchmarks.results.disk import Disk

SECONDS = 60.0
TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}
"""What says that the folder of a lease is there: ENOENT where renaming was done and its answer got lost, or where
whoever has just finished has cleared up."""


class LeaseLostError(UserError):
    """Somebody else has the cell: it was taken over while this process was paused or cut off, or it is finished."""


@dataclass(frozen=True)
class Holder:
    """What the name of a lease's file says."""

    host: str
    pid: int
    machine: str  # whoever has the same sees the same processes
    nonce: str
    seconds: float
    beat: int

    @classmethod
    def parse(cls, name: str) -> Holder | None:
        try:
            host, pid, machine, nonce, seconds, beat = name.rsplit(".", 5)
            return cls(host, int(pid), machine, nonce, float(seconds), int(beat))
        except ValueError:
            return None

    @property
    def name(self) -> str:
        return f"{self.stem}.{self.beat}"

    @property
    def stem(self) -> str:
        """The name without the beat: the same as long as the lease is held."""
        return f"{self.host}.{self.pid}.{self.machine}.{self.nonce}.{self.seconds:.0f}"


def surely_dead(holder: Holder) -> bool:
    """Whether it was a process of this machine that is gone; False where that can't be known."""
    if holder.machine != machine():
        return False
    try:
        return psutil.Process(holder.pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


class Lease:
    """A lease that this process holds, as far as it knows."""

    def __init__(self, disk: Disk, place: Path, holder: Holder, before: Holder | None) -> None:
        self.place, self.holder = place, holder
        self.before = before  # the dead process that it was taken from
        self._disk, self._beat, self._lost = disk, holder.beat, False
        self._one = threading.Lock()  # whoever beats and whoever is about to write

    def renew(self) -> None:
        """One beat, which is also the proof that nobody else holds the lease.

        Raises:
            LeaseLostError: somebody else does.
            OSError: the folder can't be reached or written to; nothing is known then.
        """
        with self._one:
            for _ in range(2):  # a rename whose answer got lost is tried again, and does not find its file
                if self._lost:
                    break
                try:
                    self._disk.rename(self._file(0), self._file(1))
                    self._beat += 1
                    return
                except FileNotFoundError:
                    self._beat += 1
            self._lost = True
            raise LeaseLostError(f"the lease {self.place} is not held by this process any more")

    def release(self) -> None:
        """Let the next have it."""
        with self._one:
            if self._lost:
                return
            self._lost = True
            for remove, path in (
                (self._disk.remove, self._file(0)),
                (self._disk.remove_folder, self.place),  # not where the next has it already
            ):
                with suppress(OSError):
                    remove(path)

    @property
    def lost(self) -> bool:
        """Whether it is known to be gone."""
        return self._lost

    def _file(self, ahead: int) -> Path:
        return self.place / f"{self.holder.stem}.{self._beat + ahead}"


class Leases:
    """The leases of a store as one process sees them.

    Args:
        seconds: a holder that has not renewed its lease for so long may lose it.
        me: host, process and machine; None: this process.
        surely_dead: whether a holder is known to be dead without waiting.
    """

    def __init__(
        self,
        disk: Disk,
        seconds: float = SECONDS,
        me: tuple[str, int, str] | None = None,
        surely_dead: Callable[[Holder], bool] = surely_dead,
    ) -> None:
        self.disk, self.seconds = disk, seconds
        self.host, self.pid, self.machine = me or (socket.gethostname(), os.getpid(), machine())
        self.surely_dead = surely_dead
        self._seen: dict[Path, tuple[str, float]] = {}  # the name seen, and since when

    def holder(self, folder: Path) -> Holder | None:
        """Who holds the lease on ``folder``, dead or alive, by one look that may be an old one."""
        return self._look(folder / "lease")[1]

    def free(self, folder: Path) -> bool:
        """Whether nobody holds the lease, or a holder that is dead or has let it run out before this process."""
        name, holder = self._look(folder / "lease")
        return not name or self._expired(folder / "lease", name, holder)

    def _look(self, place: Path) -> tuple[str, Holder | None]:
        """The name of the file in ``place``, "" where there is none, and what it says."""
        found = [(name, Holder.parse(name)) for name in self.disk.names(place)]
        # A listing made during a renewal may show both names.
        return max(found, key=lambda each: each[1].beat if each[1] else -1, default=("", None))

    def acquire(self, folder: Path) -> Lease | None:
        """The lease on ``folder``, which is there, or None where somebody else has it."""
        place = folder / "lease"
        name, before = self._look(place)
        if name and not self._expired(place, name, before):
            return None
        mine = Lease(self.disk, place, self._myself(), before)
        if name:
            with suppress(FileNotFoundError):
                self.disk.rename(place / name, place / mine.holder.name)
        else:
            self._appear(folder / f".lease-{mine.holder.nonce}", place, mine.holder)
        self._seen.pop(place, None)
        try:
            mine.renew()  # whatever the answers were: this tells who has it
        except LeaseLostError:
            return None
        return mine

    def _myself(self) -> Holder:
        return Holder(self.host, self.pid, self.machine, secrets.token_hex(4), self.seconds, 0)

    def _appear(self, aside: Path, place: Path, holder: Holder) -> None:
        """Let the folder ``place`` appear with ``holder`` in it, unless it is there with somebody else."""
        try:
            self.disk.make_folder(aside)
            self.disk.create(aside / holder.name)
            self.disk.rename(aside, place)
        except OSError as error:
            for remove, path in (
                (self.disk.remove, aside / holder.name),
                (self.disk.remove_folder, aside),
            ):
                with suppress(OSError):
                    remove(path)
            if error.errno not in TAKEN:
                raise

    def _expired(self, place: Path, name: str, holder: Holder | None) -> bool:
        """Whether the holder is dead, or has not moved for the whole lease while this process looked on."""
        if holder and self.surely_dead(holder):
            return True
        now = self.disk.now()
        seen, since = self._seen.get(place, ("", now))
        if seen != name:
            self._seen[place] = (name, now)
            return False
        return now - since >= (holder.seconds if holder else self.seconds)


@cache
def machine() -> str:
    """A name for what one process id means: this boot of this machine, and the container if there is one."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return sha256(f"{boot}{Path('/proc/self/ns/pid').readlink()}".encode()).hexdigest()[:8]
    except OSError:  # a system without /proc
        return sha256(f"{socket.gethostname()}{psutil.boot_time():.0f}".encode()).hexdigest()[:8]
