"""Lines for the person at the terminal: warnings and notes on stderr, one line each."""

from __future__ import annotations

import functools
import sys


def warn(message: str) -> None:
    print(f"weightaug: warning: {message}", file=sys.stderr, flush=True)


def note(message: str) -> None:
    print(f"weightaug: {message}", file=sys.stderr, flush=True)


@functools.cache
def warn_once(message: str) -> None:
    """:func:`warn`, but for what was said before: a data set is looked at several times in a run."""
    warn(message)


@functools.cache
def note_once(message: str) -> None:
    """:func:`note`, but for what was said before."""
    note(message)
