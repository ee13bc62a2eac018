"""Parts of a table: its seeds, and the cells that `--only` leaves."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from benchmarks.cell import Cell
from benchmarks.errors import UserError, unknown_name
from benchmarks.tables.table import TableCell

KEYS: dict[str, Callable[[TableCell, Cell], tuple[str, ...]]] = {
    "panel": lambda planned, cell: (planned.panel,),
    "row": lambda planned, cell: planned.rows,
    "seed": lambda planned, cell: (str(planned.seed),),
    "method": lambda planned, cell: (cell.method.name,),
    "model": lambda planned, cell: (cell.model.title,),
    "dataset": lambda planned, cell: (cell.dataset.name,),
}
"""What cells can be chosen by, and what a cell is called there."""


def parse_seeds(text: str) -> tuple[int, ...]:
    """``5``: five seeds, 0 to 4. ``0,2,5``: these three. ``3..7``: these five. ``0,3..5``: both together."""
    seeds: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", part.strip())
        if ends is None or (ends[2] and int(ends[2]) < int(ends[1])):
            raise UserError(f"--seeds {text}: give a number of seeds (5), a list (0,2,5) or a range (3..7)")
        seeds += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    if "," not in text and ".." not in text:
        seeds = [*range(seeds[0])]
    if not seeds:
        raise UserError(f"--seeds {text}: at least one seed is needed")
    return tuple(sorted(set(seeds)))


def shown_seeds(seeds: Sequence[int]) -> str:
    """Seeds as --seeds takes them, in the shortest way."""
    first, last = seeds[0], seeds[-1]
    if list(seeds) != [*range(first, last + 1)]:
        return ",".join(map(str, seeds))
    return str(len(seeds)) if first == 0 else f"{first}..{last}"


def select(planned: Sequence[TableCell], cells: Sequence[Cell], only: Sequence[str]) -> tuple[str, ...]:
    """The ids of the cells that fit ``only``.

    Args:
        planned: the table's cells, and ``cells`` the same composed.
        only: KEY=VALUE[,VALUE...] with a key of :data:`KEYS`. A cell must fit one value of every key that is there.

    Raises:
        UserError: an unknown key, a value that no cell has, or nothing left.
    """
    wanted: dict[str, set[str]] = {}
    for text in only:
        key, _, values = text.partition("=")
        if key not in KEYS:
            raise unknown_name("key of --only", key, KEYS)
        known = {name for plan, cell in zip(planned, cells, strict=True) for name in KEYS[key](plan, cell)}
        for value in values.split(","):
            if value not in known:
                raise unknown_name(f"{key} in --only {text}:", value, known)
            wanted.setdefault(key, set()).add(value)
    chosen = {
        cell.id: None
        for plan, cell in zip(planned, cells, strict=True)
        if all(values.intersection(KEYS[key](plan, cell)) for key, values in wanted.items())
    }
    if not chosen:
        raise UserError(f"no cell of the table fits all of --only {' --only '.join(only)}; leave one out")
    return tuple(chosen)
