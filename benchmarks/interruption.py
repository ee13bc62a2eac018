"""SIGTERM and Ctrl-C: they end the program at once or, inside :func:`postponed`, where its state is whole.

The same request may come several times, from the terminal, a scheduler and the parent process; it is heeded once.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE_SECONDS = 5.0
"""A signal this long after the first means that the person does not want to wait; sooner it is the same request."""

_received: int | None = None
_received_at = 0.0
_postponed = 0


class Interrupted(KeyboardInterrupt):
    """The program was asked to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def _receive(number: int, frame: FrameType | None) -> None:
    global _received, _received_at
    now, first = time.monotonic(), _received is None
    if not first and now - _received_at < PATIENCE_SECONDS:
        return
    _received, _received_at = number, now
    if not (first and _postponed):
        raise Interrupted(number)


@contextmanager
def handled(*numbers: int) -> Iterator[None]:
    """Inside, the signals ``numbers`` raise :class:`Interrupted`. Those that are ignored, as by ``nohup``, stay so."""
    global _received
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received = None
    before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, _receive)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def postponed() -> Iterator[None]:
    """Inside, a first signal is only noted: :func:`check` raises it, and so does the end of the context.

    An error after the signal is taken for its consequence: loader processes may have got it, too.
    """
    global _postponed
    _postponed += 1
    try:
        yield
    except Exception:
        check()
        raise
    finally:
        _postponed -= 1
    check()


def requested() -> int:
    """The number of the signal that waits to be heeded, or 0."""
    return _received or 0


def check() -> None:
    """Raise the signal that waits, if there is one."""
    if _received is not None:
        raise Interrupted(_received)
