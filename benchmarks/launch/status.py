"""`weightaug status TABLE`: done, running, failed and waiting cells, by the names of files and little else.

A card is not opened to see that its cell is done, so that a table of thousands of cells is told in a second. Nothing
is written, and nothing needs to be installed or present for training.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.cell import Cell
from benchmarks.launch.estimate import duration
from benchmarks.launch.request import Request
from benchmarks.results.card import DamagedCardError
from benchmarks.results.reading import load_card
from benchmarks.results.store import Store

STATES = ("done", "running", "failed", "waiting")
SAMPLE = 3
"""So many cards of a kind of cell tell how long one takes."""


@dataclass(frozen=True)
class Seen:
    """A cell and how far it is."""

    cell: Cell
    state: str
    beat: Mapping[str, Any] = field(default_factory=dict)  # of a running cell, see Heartbeat
    failure: Mapping[str, Any] = field(default_factory=dict)  # the last one of a cell that is not done

    @property
    def note(self) -> str:
        """Where it runs, or why it failed."""
        return running(self.beat) if self.beat else failed(self.failure)


def running(beat: Mapping[str, Any]) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(beat.get("started", beat["time"])))
    left = beat.get("seconds_left")
    told = f", {duration(left)} left" if left is not None else ""
    return (
        f"process {beat.get('pid', '?')} on {beat['host']} since {since}, {beat['fraction']:.0%} done{told}"
    )


def failed(failure: Mapping[str, Any]) -> str:
    if not failure:
        return ""
    tries = len(failure.get("attempts", [failure]))
    return f"{failure['error']} ({tries} {'try' if tries == 1 else 'tries'})"


def unfinished(store: Store, cell: Cell) -> Seen:
    """How far a cell without a card is."""
    failure = store.failures.of(cell.id)
    if beat := store.running(cell.id):
        return Seen(cell, "running", beat, failure)
    return Seen(cell, "failed" if failure.get("given_up", bool(failure)) else "waiting", failure=failure)


def look(request: Request, store: Store) -> list[Seen]:
    """How far the cells are that are asked for."""
    begun, finished = store.begun(), store.finished()
    seen = []
    for cell in (request.cells[cell_id] for cell_id in request.asked):
        if cell.id in finished:
            seen.append(Seen(cell, "done"))
        else:
            seen.append(unfinished(store, cell) if cell.id in begun else Seen(cell, "waiting"))
    return seen


@dataclass(frozen=True)
class Status:
    """How far a table is."""

    seen: list[Seen]
    left: float  # seconds until it is done, see :func:`time_left`
    unknown: int  # cells that this leaves out

    @classmethod
    def of(cls, request: Request) -> Status:
        folder = request.runtime.store_folder
        if not (folder / "cards").is_dir():
            waiting = [Seen(request.cells[cell_id], "waiting") for cell_id in request.asked]
            return cls(waiting, 0.0, len(waiting))
        store = Store(folder, read_only=True)
        seen = look(request, store)
        return cls(seen, *time_left(seen, store))

    @property
    def counts(self) -> Counter[str]:
        """How many cells are in each of the states."""
        return Counter(each.state for each in self.seen)

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do."""
        return not self.counts["running"] + self.counts["waiting"]


def by_row(request: Request, cells: Iterable[tuple[str, Any]]) -> dict[tuple[str, str], list[Any]]:
    """What belongs to cells (pairs of id and thing), by panel and row. Rows that share their cells share a line."""
    titles = {row.name: row.title for row in request.table.rows}
    panels = {panel.name: panel.label for panel in request.table.scale(request.scale).panels}
    places: dict[str, dict[tuple[str, str], None]] = {}
    for (panel, row, _), cell_id in request.positions.items():
        places.setdefault(cell_id, {})[panel, row] = None
    lines: dict[tuple[str, str], list[Any]] = {}
    for cell_id, thing in cells:
        panel = " / ".join(dict.fromkeys(panels[panel] for panel, _ in places[cell_id]))
        title = " / ".join(dict.fromkeys(titles[row] for _, row in places[cell_id]))
        lines.setdefault((panel, title), []).append(thing)
    return lines


def time_left(seen: list[Seen], store: Store) -> tuple[float, int]:
    """Seconds until the table is done with as many workers as now, and how many cells that leaves out."""
    pace = _seconds_by_kind(seen, store)
    at_work = max(1, sum(each.state == "running" for each in seen))
    seconds, unknown = 0.0, 0
    for each in seen:
        if each.state in ("done", "failed"):
            continue
        own, whole = each.beat.get("seconds_left"), pace(each.cell)
        if own is not None:
            seconds += own
        elif whole is not None:
            seconds += whole * (1 - each.beat.get("fraction", 0.0))
        else:
            unknown += 1
    return seconds / at_work, unknown


def _seconds_by_kind(seen: list[Seen], store: Store) -> Callable[[Cell], float | None]:
    """What a cell takes by the median of a few finished ones of its kind, on whatever they ran."""

    def kind(cell: Cell) -> tuple[str, ...]:
        return (cell.model.title, cell.method.name, cell.dataset.name, str(cell.recipe))

    found: dict[tuple[str, ...], list[float]] = {}
    wanted = {kind(each.cell) for each in seen if each.state in ("running", "waiting")}
    for each in seen:
        taken = found.setdefault(kind(each.cell), [])
        if each.state != "done" or len(taken) >= SAMPLE or kind(each.cell) not in wanted:
            continue
        try:
            cost = load_card(store.card_path(each.cell.id), each.cell)["cost"]
        except (FileNotFoundError, DamagedCardError):
            continue
        taken.append(
            cost["training_seconds"] + cost["evaluation_seconds"] + cost.get("preparation_seconds", 0)
        )
    return lambda cell: median(found[kind(cell)]) if found.get(kind(cell)) else None
