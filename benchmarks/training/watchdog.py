"""Says where a training step hangs."""

from __future__ import annotations

import faulthandler
import sys
import time
from collections import deque
from pathlib import Path
from statistics import median
from threading import Event, Thread

REMEMBERED = 101
"""So many of the last steps give the median."""


class Watchdog:
    """While it is entered, reports once when no step has finished for too long: with the stack of every thread.

    Args:
        name: of the cell.
        path: file that the report is added to, beside stderr.
        least: the shortest time in seconds that counts as too long.
        factor: the shortest in multiples of the median step. Before the first step is done, which may compile, it is
            ``factor * least``.
    """

    def __init__(self, name: str, path: Path, least: float = 60.0, factor: float = 20.0) -> None:
        self.name, self.path, self.least, self.factor = name, path, least, factor
        self._durations: deque[float] = deque(maxlen=REMEMBERED)
        self._last = 0.0
        self._reported = False
        self._end = Event()
        self._thread: Thread | None = None

    def __enter__(self) -> Watchdog:
        self._last, self._reported = time.monotonic(), False
        self._end.clear()
        self._thread = Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def step(self) -> None:
        """A step has finished."""
        now = time.monotonic()
        self._durations.append(now - self._last)
        self._last, self._reported = now, False

    @property
    def limit(self) -> float:
        """Seconds without a finished step that are too long."""
        steps = list(self._durations)
        return max(self.least, self.factor * median(steps)) if steps else self.factor * self.least

    def _watch(self) -> None:
        while not self._end.wait(min(1.0, self.least / 4)):
            waited = time.monotonic() - self._last
            if not self._reported and waited > self.limit:
                self._reported = True
                self._report(waited)

    def _report(self, waited: float) -> None:
        usual = f"a step takes {median(self._durations):.3g} s" if self._durations else "it is the first"
        said = (
            f"weightaug: warning: {self.name}: no step has finished for {waited:.0f} s ({usual}); it is here:"
        )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+", encoding="utf-8") as file:
                start = file.tell()
                print(said, file=file, flush=True)
                faulthandler.dump_traceback(file, all_threads=True)
                file.seek(start)
                said = file.read()
        except OSError as error:
            said += f"\n(no stack: {error})\n"
        print(said, file=sys.stderr, end="", flush=True)
