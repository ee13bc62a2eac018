"""What the process that runs a cell says of itself, second by second; and the lease that it renews."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import psutil

from benchmarks.errors import one_line
from benchmarks.results.disk import Disk
from benchmarks.results.lease import Lease, LeaseLostError
from benchmarks.terminal import warn, warn_once

LOOK_SECONDS = 1.0
BEATS = 12
"""So many renewals fit into a lease, at least: a slow server does not lose it."""


class Reporting(Protocol):
    """What the training of a cell reports to: the claim itself or, in another process, what leads to it."""

    fraction: float
    """How much of the training is done."""

    def check(self) -> None:
        """See :meth:`Heartbeat.check`."""

    def watch_memory(self) -> int:
        """See :meth:`Heartbeat.watch_memory`."""


class Heartbeat:
    """The claim on a cell: renews its lease, says how far the cell is, and watches the memory it takes.

    Args:
        path: of the file that tells others, on ``disk``.
        facts: what else it tells.
    """

    def __init__(self, path: Path, lease: Lease, disk: Disk, **facts: Any) -> None:
        self.path, self.lease, self.disk, self.facts = path, lease, disk, facts
        self.peak_memory = 0
        self._fraction = 0.0
        self._reports: list[tuple[float, float]] = []  # the first and the last (seconds, fraction)
        self._told = 0.0  # the fraction in the file
        self._started = time.time()
        self._beaten = 0.0
        self._stop = threading.Event()

    @property
    def fraction(self) -> float:
        """How much of the training is done. Setting it raises :class:`LeaseLostError` if the claim is lost."""
        return self._fraction

    @fraction.setter
    def fraction(self, value: float) -> None:
        if self.lease.lost:
            self.check()
        self._fraction = value
        self._reports = [*self._reports[:1], (time.monotonic(), value)]

    def check(self) -> None:
        """To be called right before anything is written: whether the cell is still this process's.

        Raises:
            LeaseLostError: it is not; nothing may be written then.
        """
        self.lease.renew()

    def __enter__(self) -> Heartbeat:
        try:
            self.say()
        except FileNotFoundError:  # paused since the claim, and the cell is finished
            raise LeaseLostError(f"another worker has cleared {self.path.parent}") from None
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.end()

    def start(self) -> None:
        """Beat from now on, beside what the process does."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def end(self) -> None:
        """Say nothing any more."""
        if not self.lease.lost:
            with suppress(OSError):
                self.disk.remove(self.path)

    def beat(self) -> None:
        """Renew the lease and tell."""
        self.lease.renew()
        self.say()

    def _run(self) -> None:
        every = min(5 * LOOK_SECONDS, self.lease.holder.seconds / BEATS)
        while not self._stop.wait(min(LOOK_SECONDS, every)):
            self.watch_memory()
            if self._fraction == self._told and time.monotonic() - self._beaten < every:
                continue
            try:
                self.beat()
            except LeaseLostError:
                warn(f"another worker has taken over the cell in {self.path.parent}; this one gives it up")
                return
            except OSError as error:  # perhaps for a while only; the lease is lost if somebody takes it
                warn_once(f"{self.path}: {one_line(error)}; trying again")

    def say(self) -> None:
        """Write the file that tells others."""
        self._beaten, self._told = time.monotonic(), self._fraction
        said = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": self._started,
            "time": time.time(),
            "fraction": self._fraction,
            "seconds_left": self._seconds_left(),
        }
        self.disk.write(self.path, json.dumps({**self.facts, **said}, sort_keys=True) + "\n")

    def _seconds_left(self) -> float | None:
        """By the pace since the first report; None before the second."""
        if len(self._reports) < 2:
            return None
        (first, start), (last, fraction) = self._reports
        if fraction <= start:
            return None
        pace = (last - first) / (fraction - start)
        return max(0.0, (1 - fraction) * pace - (time.monotonic() - last))

    def watch_memory(self) -> int:
        """The largest resident memory of this process, in bytes, seen since the cell began."""
        self.peak_memory = max(self.peak_memory, psutil.Process().memory_info().rss)
        return self.peak_memory
