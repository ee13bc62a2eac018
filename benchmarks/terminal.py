"""What the person at the terminal gets: warnings and notes on stderr, one line each; tables on stdout."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


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


def console(width: int = 120) -> Console:
    """For tables on stdout, whose cells say what they say: no markup.

    Args:
        width: where stdout is no terminal; rich would assume 80 columns, which breaks tables.
    """
    from rich.console import Console

    found = Console(highlight=False, markup=False, emoji=False)
    if not found.is_terminal:
        found.width = width
    return found
