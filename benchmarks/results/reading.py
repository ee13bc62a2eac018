"""Cards read from their files: whole ones of the right cell, or an error that says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.errors import one_line
from benchmarks.results.card import Card, DamagedCardError, check_card
from benchmarks.results.files import set_aside

if TYPE_CHECKING:
    from benchmarks.cell import Cell


def read_card(path: Path, cell: Cell | None = None) -> Card | None:
    """One card file, or None where there is none. A damaged one is set aside with a warning.

    Args:
        cell: the cell itself where it is known; a card that states other settings counts as damaged.
    """
    try:
        return load_card(path, cell)
    except FileNotFoundError:
        return None
    except DamagedCardError as error:
        set_aside(path, f"damaged card ({one_line(error)}); its cell counts as not run")
        return None


def load_card(path: Path, cell: Cell | None = None) -> Card:
    """The card in a file named after its cell.

    Raises:
        FileNotFoundError: there is none.
        DamagedCardError: the file is no valid card, or that of another cell.
    """
    card = parse_card(path)
    if card["id"] != path.stem:
        raise DamagedCardError(f"is the card of cell {card['id']}")
    if cell is not None and (setting := cell.contradiction(card["cell"])):
        raise DamagedCardError(f"states another {setting} than the cell that it is named after")
    return card


def parse_card(path: Path) -> Card:
    """The card in a file.

    Raises:
        FileNotFoundError: there is none.
        DamagedCardError: the file is no valid card.
    """
    try:
        return card_from(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedCardError(one_line(error)) from error


def card_from(content: bytes) -> Card:
    """The card in a file's content, or a :class:`DamagedCardError`."""
    try:
        return check_card(json.loads(content))
    except (ValueError, RecursionError) as error:
        raise DamagedCardError(one_line(error)) from error
