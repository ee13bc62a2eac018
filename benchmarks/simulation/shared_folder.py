"""A file server and its clients as NFS has them: changes are made in one order, looks may be a minute old.

Each host keeps what it has looked at for a time of its own, so that views are late and in any order; it forgets what
it knows of a folder when it changes something there. The answer to a change may get lost, and the change is asked for
again: it then meets what it has done itself. An operation may take minutes, as if the process were paused. The server
does one operation after another, in a time that each takes.
"""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.results.disk import Disk
from benchmarks.simulation.processes import Process, SimulatedTime

NAMES_AN_OPERATION = 100
"""So many names an answer to READDIR holds."""
OPERATIONS_A_WRITE = 4
"""A file that appears whole: create, write, commit, rename."""


@dataclass(frozen=True)
class Conditions:
    """How bad it is. Seconds and probabilities."""

    oldest_view: float = 60.0
    way: float = 0.001  # of a request and its answer, on average
    service: float = 0.0001  # of the server for an operation
    lost_answer: float = 0.002  # of a change
    pause: float = 0.0005  # of an operation
    longest_pause: float = 300.0


class File:
    __slots__ = ("changed", "names", "text")

    def __init__(self, text: str, changed: int) -> None:
        self.text, self.changed, self.names = text, changed, 1


Folder = dict[str, Any]
"""Files and folders by name."""


class Server:
    """What is really in the shared folder."""

    def __init__(self, time: SimulatedTime, conditions: Conditions, chance: random.Random) -> None:
        self.time, self.conditions, self.chance = time, conditions, chance
        self.root: Folder = {}
        self.operations: Counter[str] = Counter()
        self._free_at = 0.0

    def serve(self, kind: str, count: int = 1) -> float:
        """The seconds that ``count`` operations take, with waiting for those of others."""
        self.operations[kind] += count
        now = self.time.now
        self._free_at = max(self._free_at, now) + count * self.conditions.service
        return self._free_at - now + self.chance.expovariate(1 / self.conditions.way)

    def find(self, path: Path) -> Any:
        node: Any = self.root
        try:
            for part in path.parts[1:]:
                node = node[part]
        except (KeyError, TypeError):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
        return node

    def stamp(self) -> int:
        return int(self.time.now * 1e9)


@dataclass
class Host:
    """A machine: its clock, and what it remembers of the shared folder."""

    name: str
    clock: float  # what its clock says at simulated time 0
    boot: int = 0
    seen: dict[Path, dict[str, tuple[float, Any]]] = field(
        default_factory=dict
    )  # folder: {what: (until, answer)}


class SharedFolder(Disk):
    """The shared folder as one process on one host sees it."""

    def __init__(self, server: Server, host: Host, process: Process) -> None:
        self.server, self.host, self.process = server, host, process
        self.operations: Counter[str] = Counter()
        self._rested = (0.0, 0)

    def now(self) -> float:
        return self.server.time.now + self.host.clock

    def wait(self, seconds: float) -> None:
        self.server.time.sleep(self.process, seconds)
        self.rest()

    def rest(self) -> None:
        """What the process does from here on is one piece of work, as after a wait."""
        self._rested = (self.server.time.now, self.operations.total())

    def since_rest(self) -> tuple[float, int]:
        """Seconds and operations."""
        now, before = self._rested
        return self.server.time.now - now, self.operations.total() - before

    def _take(self, kind: str, count: int = 1) -> None:
        """The time of an operation passes; its effect comes at the end of it."""
        self.server.time.must_live(self.process)
        self.operations[kind] += count
        seconds, bad, chance = self.server.serve(kind, count), self.server.conditions, self.server.chance
        if chance.random() < bad.pause:
            seconds += chance.uniform(0, bad.longest_pause)
        self.server.time.sleep(self.process, seconds)

    def _look(self, kind: str, folder: Path, what: str, look: Callable[[], Any], count: int = 1) -> Any:
        """The answer that the host remembers or, else, the server's; None where there is no such thing."""
        until, answer = self.host.seen.get(folder, {}).get(what, (-1.0, None))
        if until >= self.server.time.now:
            return answer
        self._take(kind, count)
        try:
            answer = look()
        except FileNotFoundError:
            answer = None
        until = self.server.time.now + self.server.chance.uniform(0, self.server.conditions.oldest_view)
        self.host.seen.setdefault(folder, {})[what] = (until, answer)
        return answer

    def _change(
        self, kind: str, folders: tuple[Path, ...], change: Callable[[], None], count: int = 1
    ) -> None:
        self._take(kind, count)
        for folder in folders:
            self.host.seen.pop(folder, None)
        change()
        if self.server.chance.random() < self.server.conditions.lost_answer:
            self._take(kind)
            change()

    def names(self, folder: Path) -> list[str]:
        def look() -> list[str]:
            found = self.server.find(folder)
            return list(found) if isinstance(found, dict) else []

        try:
            count = 1 + len(look()) // NAMES_AN_OPERATION
        except FileNotFoundError:
            count = 1
        return list(self._look("list", folder, "names", look, count) or ())

    def _file(self, path: Path) -> tuple[str, int, int] | None:
        """Text, time of change and number of names."""
        found = self.server.find(path)
        return ("", 0, 1) if isinstance(found, dict) else (found.text, found.changed, found.names)

    def exists(self, path: Path) -> bool:
        return self._look("look", path.parent, f"look {path.name}", lambda: self._file(path)) is not None

    def stamp(self, path: Path) -> int | None:
        found = self._look("look", path.parent, f"look {path.name}", lambda: self._file(path))
        return found[1] if found else None

    def read(self, path: Path) -> bytes:
        found = self._look("read", path.parent, f"read {path.name}", lambda: self._file(path))
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return str(found[0]).encode()

    def names_of(self, path: Path) -> int:
        self._take("look")
        return int(self.server.find(path).names)

    def make_folder(self, path: Path) -> None:
        def change() -> None:
            folder = self.server.root
            for part in path.parts[1:]:
                folder = folder.setdefault(part, {})

        self._change("create", (path.parent,), change)

    def create(self, path: Path, text: str = "") -> None:
        self._take("create")  # asked for again, it is known to be the same request
        folder = self.server.find(path.parent)
        self.host.seen.pop(path.parent, None)
        if path.name in folder:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        folder[path.name] = File(text, self.server.stamp())

    def write(self, path: Path, text: str) -> None:
        self._take("write", OPERATIONS_A_WRITE)
        self.server.find(path.parent)[path.name] = File(text, self.server.stamp())
        self.host.seen.pop(path.parent, None)

    def link(self, path: Path, new: Path) -> None:
        def change() -> None:
            file, folder = self.server.find(path), self.server.find(new.parent)
            if new.name in folder:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new))
            folder[new.name] = file
            file.names += 1

        self._change("link", (new.parent,), change)

    def rename(self, path: Path, new: Path) -> None:
        def change() -> None:
            node, folder = self.server.find(path), self.server.find(new.parent)
            if isinstance(node, dict) and folder.get(new.name):
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(new))
            del self.server.find(path.parent)[path.name]
            folder[new.name] = node

        self._change("rename", (path.parent, new.parent), change)

    def remove(self, path: Path) -> None:
        def change() -> None:
            file = self.server.find(path)
            if isinstance(file, dict):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            file.names -= 1
            del self.server.find(path.parent)[path.name]

        self._change("remove", (path.parent,), change)

    def remove_folder(self, path: Path) -> None:
        def change() -> None:
            if self.server.find(path):
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))
            del self.server.find(path.parent)[path.name]

        self._change("remove", (path.parent,), change)
