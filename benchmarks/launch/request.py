"""What `weightaug reproduce` and `weightaug report` are asked for: a table at a scale, with its cells."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import registry
from benchmarks.cell import Cell
from benchmarks.config import load_all
from benchmarks.errors import UserError
from benchmarks.launch.selection import parse_seeds, select, shown_seeds
from benchmarks.results.card import Card
from benchmarks.results.provenance import command_line
from benchmarks.runtime import Runtime
from benchmarks.tables.published import Published, load_published
from benchmarks.tables.reading import load_table
from benchmarks.tables.table import FULL, Row, Table

RUNTIME_KEYS = {field.name for field in dataclasses.fields(Runtime)}
NAMED_BY_TABLE = ("seed", "scale", "method", "model")
Position = tuple[str, str, int]
"""(panel, row, seed): where in a table a card belongs."""


@dataclass(frozen=True)
class Request:
    """What a person asked for: a table at a scale, with the cells that fill it."""

    table: Table
    scale: str
    seeds: tuple[int, ...]
    cells: dict[str, Cell]  # by id: all that the table shows
    positions: dict[Position, str]  # which cell's id stands where
    asked: tuple[str, ...]  # ids of the cells to train; fewer than ``cells`` with --only
    runtime: Runtime
    reports: Path
    command: str  # what the person typed, for the cards
    whole: tuple[str, ...]  # the command that makes the whole table
    only: tuple[str, ...]  # the KEY=VALUE of --only

    @classmethod
    def parse(
        cls,
        name: str,
        scale: str,
        seeds: int | str | None,
        extra_rows: Sequence[str],
        overrides: Sequence[str],
        reports: str,
        only: Sequence[str] = (),
    ) -> Request:
        """Compose every cell of the table; any unknown name or key is an error here, before anything runs.

        Args:
            seeds: see :func:`benchmarks.launch.selection.parse_seeds`; None: what the table says.
            only: see :func:`benchmarks.launch.selection.select`.
        """
        table = load_table(registry.lookup("table", name).path, name).at(scale)
        table = dataclasses.replace(table, rows=(*table.rows, *map(_extra_row, dict.fromkeys(extra_rows))))
        count = table.scale(scale).seeds
        wanted = tuple(range(count)) if seeds is None else parse_seeds(str(seeds))
        planned = table.cells(scale, wanted)
        # The overrides by themselves first: what is wrong with them is told as such.
        (_, runtime), *composed = load_all([overrides, *((*cell.overrides, *overrides) for cell in planned)])
        changes = _changes(overrides, scale)
        if changes:
            note = f"Changed from the table: {', '.join(changes)}."
            table = dataclasses.replace(table, notes=(*table.notes, note))
        cells = [cell for cell, _ in composed]
        positions = {
            (plan.panel, row, plan.seed): cell.id
            for plan, cell in zip(planned, cells, strict=True)
            for row in plan.rows
        }
        whole = ["weightaug", "reproduce", name, "--scale", scale, "--seeds", shown_seeds(wanted)]
        whole += [part for row in dict.fromkeys(extra_rows) for part in ("--with", row)] + changes
        return cls(
            table,
            scale,
            wanted,
            {cell.id: cell for cell in cells},
            positions,
            select(planned, cells, only),
            runtime,
            Path(reports),
            command_line(),
            tuple(whole),
            tuple(only),
        )

    def published(self) -> Published | None:
        """The published numbers of the table, where there are any."""
        if self.table.published is None:
            return None
        return load_published(registry.lookup("published", self.table.published).path)

    def cards(self, read: Callable[[str, Cell], Card | None]) -> Mapping[Position, Card | None]:
        """The card of every position, of cells that are not asked for too; None where there is none yet."""
        found = {cell_id: read(cell_id, cell) for cell_id, cell in self.cells.items()}
        return {position: found[cell_id] for position, cell_id in self.positions.items()}

    def again(self, cards: Mapping[Position, Card | None]) -> str:
        """The command that makes the report on ``cards`` again: with --only as long as no other cell has a card."""
        others = any(
            cards[position] for position, cell_id in self.positions.items() if cell_id not in self.asked
        )
        chosen = () if others else tuple(part for text in self.only for part in ("--only", text))
        return shlex.join((*self.whole, *chosen))


def _changes(overrides: Sequence[str], scale: str) -> list[str]:
    """Those overrides that change what the cells are; what a row, a panel or a seed is called must stay true."""
    changes = [text for text in overrides if text.partition("=")[0].partition(".")[0] not in RUNTIME_KEYS]
    for text in changes:
        key = text.partition("=")[0]
        if key in NAMED_BY_TABLE:
            raise UserError(f"{text}: a table chooses its own {key}; see --scale, --seeds and --with")
        if scale == FULL:
            raise UserError(
                f"{text}: at full scale, whose numbers face the published ones, no setting can be changed"
            )
    return changes


def _extra_row(text: str) -> Row:
    overrides = tuple(text.split())
    method = next((part.partition("=")[2] for part in overrides if part.startswith("method=")), None)
    if method is None:
        raise UserError(f"--with {text!r}: a row needs a method, e.g. --with 'method=damp method.sigma=0.1'")
    others = [part.removeprefix("method.") for part in overrides if not part.startswith("method=")]
    return Row(name="-".join([method, *others]), label=" ".join([method, *others]), overrides=overrides)
