"""`weightaug status TABLE`: done, running, failed and waiting cells, by the names of files and little else.

A card is not opened to see that its cell is done, so that a table of thousands of cells is told in a second. Nothing
is written, and nothing needs to be installed or present for training.
"""

from __future__ import annotations

import json
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
WIDTH = 120
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


def show(request: Request, as_json: bool) -> int:
    """Print how far the table is."""
    folder = request.runtime.store_folder
    if (folder / "cards").is_dir():
        store = Store(folder, read_only=True)
        seen = look(request, store)
        left, unknown = time_left(seen, store)
    else:
        seen = [Seen(request.cells[cell_id], "waiting") for cell_id in request.asked]
        left, unknown = 0.0, len(seen)
    lines = by_row(request, ((each.cell.id, each) for each in seen))
    told = _as_json if as_json else _as_text
    told(request, seen, lines, left, unknown)
    return 0


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


def _as_text(
    request: Request,
    seen: list[Seen],
    lines: Mapping[tuple[str, str], list[Seen]],
    left: float,
    unknown: int,
) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDTH  # rich assumes 80 columns, which breaks the table
    counts = Counter(each.state for each in seen)
    shown = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    print(f"{request.table.name} at scale {request.scale}: {len(seen)} cells: {shown}")
    table = RichTable("panel", "row", box=None, header_style="bold")
    for head in ("cells", *STATES):
        table.add_column(head, justify="right")
    for (panel, title), cells in lines.items():
        of_row = Counter(each.state for each in cells)
        table.add_row(panel, title, str(len(cells)), *(str(of_row[state] or "-") for state in STATES))
    console.print(table)
    for state in ("running", "failed", "waiting"):
        for each in seen:
            if each.state == state and each.note:
                earlier = "failed before: " if state == "waiting" else ""
                print(f"{state}: {each.cell.label}: {earlier}{each.note}")
    if counts["running"] + counts["waiting"]:
        rate = f"at the pace of the finished cells with {max(1, counts['running'])} at a time"
        some = f"about {duration(left)} {rate}" if left else ""
        others = f"not known for {unknown} cell(s), of a kind that none is finished of" if unknown else ""
        print(f"time left: {'; '.join(part for part in (some, others) if part)}")
    print(f"store: {request.runtime.store_folder}")


def _as_json(
    request: Request,
    seen: list[Seen],
    lines: Mapping[tuple[str, str], list[Seen]],
    left: float,
    unknown: int,
) -> None:
    def counts(cells: Iterable[Seen]) -> dict[str, int]:
        found = Counter(each.state for each in cells)
        return {state: found[state] for state in STATES}

    def told(each: Seen) -> dict[str, Any]:
        known = {"state": each.state, "label": each.cell.label}
        return (
            known
            | ({"heartbeat": each.beat} if each.beat else {})
            | ({"failure": each.failure} if each.failure else {})
        )

    content = {
        "table": request.table.name,
        "scale": request.scale,
        "store": str(request.runtime.store_folder),
        "counts": counts(seen),
        "rows": [
            {"panel": panel, "row": row, "counts": counts(cells)} for (panel, row), cells in lines.items()
        ],
        "cells": {each.cell.id: told(each) for each in seen},
        "seconds_left": left,
        "cells_of_unknown_time": unknown,
    }
    print(json.dumps(content, indent=1))
