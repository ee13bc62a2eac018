"""Processes that take turns: each is a thread, one runs at a time; simulated time alone says which is next."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

STACK_BYTES = 256 * 1024


class Death(BaseException):
    """The process is no more: raised in it wherever it is, and again at everything that it tries to do then."""


@dataclass(eq=False)
class Process:
    """One simulated process.

    Attributes:
        pid: of it, on whatever host.
        dies_at: simulated second of its death.
    """

    pid: int
    dies_at: float
    turn: threading.Lock = field(default_factory=threading.Lock)


class SimulatedTime:
    """The simulated time and who does something in it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.errors: list[BaseException] = []
        self._due: list[tuple[float, int, Process]] = []
        self._number = 0
        self._ended = threading.Lock()
        self._ended.acquire()

    def start(self, life: Callable[[Process], None], after: float, lifetime: float) -> None:
        """A process that does ``life`` from ``after`` seconds on, and dies ``lifetime`` seconds later."""
        self._number += 1
        process = Process(self._number, self.now + after + lifetime)
        process.turn.acquire()
        self._push(process, after)
        threading.Thread(target=self._live, args=(process, life), daemon=True).start()

    def _live(self, process: Process, life: Callable[[Process], None]) -> None:
        process.turn.acquire()
        try:
            if self.now < process.dies_at:
                life(process)
        except Death:
            pass
        except BaseException as error:  # told by run()
            self.errors.append(error)
        process.dies_at = min(process.dies_at, self.now)
        self._next()

    def sleep(self, process: Process, seconds: float) -> None:
        """Let ``seconds`` pass for ``process``, while others do what they do."""
        self.must_live(process)
        until = min(self.now + seconds, process.dies_at)
        if not self._due or until < self._due[0][0]:  # nobody else is earlier
            self.now = until
        else:
            self._push(process, until - self.now)
            self._next()
            process.turn.acquire()
        self.must_live(process)

    def must_live(self, process: Process) -> None:
        """Whatever a process does begins with this: the dead do nothing."""
        if self.now >= process.dies_at:
            raise Death

    def kill(self, process: Process) -> None:
        """``process`` dies now."""
        process.dies_at = self.now

    def _push(self, process: Process, after: float) -> None:
        self._number += 1
        heapq.heappush(self._due, (self.now + after, self._number, process))

    def _next(self) -> None:
        if self.errors or not self._due:
            self._ended.release()
            return
        self.now, _, process = heapq.heappop(self._due)
        process.turn.release()

    def run(self) -> None:
        """Until no process is left."""
        before = threading.stack_size(STACK_BYTES)
        try:
            self._next()
            self._ended.acquire()
        finally:
            threading.stack_size(before)
        if self.errors:
            raise self.errors[0]
