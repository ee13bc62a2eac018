"""Processes of this machine that are started together and end with the one that started them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Protocol

STOP_SECONDS = 30.0
"""So long a process may take to end with a checkpoint."""
POLL_SECONDS = 0.2


class Stoppable(Protocol):
    """What can be told to end."""

    def alive(self) -> bool: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


class Group:
    """Processes of multiprocessing."""

    def __init__(self, processes: list[BaseProcess] | None = None) -> None:
        self.processes = processes or []

    def start(self) -> None:
        for process in self.processes:
            process.start()

    def alive(self) -> bool:
        return any(process.is_alive() for process in self._started())

    def stop(self) -> None:
        for process in self._started():
            process.terminate()

    def kill(self) -> None:
        for process in self._started():
            process.kill()

    def _started(self) -> list[BaseProcess]:
        return [process for process in self.processes if process.pid is not None]

    @property
    def exit_codes(self) -> list[int | None]:
        """None for those that live."""
        return [process.exitcode for process in self.processes]


@contextmanager
def attended(group: Stoppable, serve: Callable[[], object] = lambda: None) -> Iterator[None]:
    """If the context is left early, as by Ctrl-C, all are told to end and waited for, but not for ever.

    Args:
        serve: called again and again while they end, for what they may still ask for.
    """
    try:
        yield
    except BaseException:
        try:
            group.stop()
            deadline = time.monotonic() + STOP_SECONDS
            while group.alive() and time.monotonic() < deadline:
                serve()
                time.sleep(POLL_SECONDS)
        finally:
            group.kill()
        raise


def end_with(parent: int) -> None:
    """From now on this process ends, with a checkpoint, when its parent is gone, also when that was killed."""
    Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)
