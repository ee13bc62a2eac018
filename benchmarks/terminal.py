"""Lines for the person at the terminal: warnings and notes on stderr, one line each."""

from __future__ import annotations

import sys


def warn(message: str) -> None:
    print(f"weightaug: warning: {message}", file=sys.stderr, flush=True)


def note(message: str) -> None:
    print(f"weightaug: {message}", file=sys.stderr, flush=True)
