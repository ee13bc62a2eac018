"""How far a table is, for a person or a program: once, or again and again."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from benchmarks.interruption import Interrupted
from benchmarks.launch.estimate import duration
from benchmarks.launch.request import Request
from benchmarks.launch.status import STATES, Seen, Status, by_row
from benchmarks.terminal import console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

WATCH_SECONDS = 3.0
"""Between two looks; looking at a large store takes a while, too."""


def show(request: Request, as_json: bool = False) -> int:
    """Print how far the table is now."""
    status = Status.of(request)
    if as_json:
        print(json.dumps(_as_json(request, status), indent=1))
    else:
        _print(request, status)
    return 0


def watch(request: Request) -> int:
    """Show it until nothing is left to do, or until Ctrl-C, which is how one leaves. Where stdout is no terminal, all
    of it once and then a line whenever cells have come further."""
    screen = console()
    try:
        if screen.is_terminal:
            _watch_screen(request, screen)
        else:
            _watch_lines(request)
    except Interrupted as stop:
        if stop.exit_code != 128 + signal.SIGINT:
            raise
    return 0


def _watch_screen(request: Request, screen: Console) -> None:
    from rich.console import Group
    from rich.live import Live

    with Live(console=screen, auto_refresh=False) as live:
        while True:
            status = Status.of(request)
            # The table last, as it is what may be too long for the screen.
            parts = sorted(_as_text(request, status), key=lambda part: not isinstance(part, str))
            live.update(Group(*parts), refresh=True)
            if status.settled:
                return
            time.sleep(WATCH_SECONDS)


def _watch_lines(request: Request) -> None:
    status = Status.of(request)
    _print(request, status)
    while not status.settled:
        time.sleep(WATCH_SECONDS)
        before, status = status, Status.of(request)
        if status.counts != before.counts:
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {_headline(request, status)}", flush=True)


def _print(request: Request, status: Status) -> None:
    screen = console()
    for part in _as_text(request, status):
        screen.print(part, soft_wrap=isinstance(part, str))
    screen.file.flush()


def _headline(request: Request, status: Status) -> str:
    shown = ", ".join(f"{status.counts[state]} {state}" for state in STATES if status.counts[state])
    return f"{request.table.name} at scale {request.scale}: {len(status.seen)} cells: {shown}"


def _as_text(request: Request, status: Status) -> Iterator[str | RichTable]:
    """Lines, and the table of the rows."""
    yield _headline(request, status)
    yield _rows(request, status)
    for state in ("running", "failed", "waiting"):
        for each in status.seen:
            if each.state == state and each.note:
                earlier = "failed before: " if state == "waiting" else ""
                yield f"{state}: {each.cell.label}: {earlier}{each.note}"
    if not status.settled:
        at_once, left, unknown = max(1, status.counts["running"]), status.left, status.unknown
        some = (
            f"about {duration(left)} at the pace of the finished cells with {at_once} at a time"
            if left
            else ""
        )
        others = f"not known for {unknown} cell(s), of a kind that none is finished of" if unknown else ""
        yield f"time left: {'; '.join(part for part in (some, others) if part)}"
    folder = request.runtime.store_folder
    yield f"store: {folder}" + ("" if folder.is_dir() else ", not there yet")


def _rows(request: Request, status: Status) -> RichTable:
    from rich.table import Table as RichTable

    table = RichTable("panel", "row", box=None, header_style="bold")
    for head in ("cells", *STATES):
        table.add_column(head, justify="right")
    for (panel, title), cells in _by_row(request, status).items():
        of_row = Counter(each.state for each in cells)
        table.add_row(panel, title, str(len(cells)), *(str(of_row[state] or "-") for state in STATES))
    return table


def _by_row(request: Request, status: Status) -> dict[tuple[str, str], list[Seen]]:
    return by_row(request, ((each.cell.id, each) for each in status.seen))


def _as_json(request: Request, status: Status) -> dict[str, Any]:
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

    return {
        "table": request.table.name,
        "scale": request.scale,
        "store": str(request.runtime.store_folder),
        "counts": counts(status.seen),
        "rows": [
            {"panel": panel, "row": row, "counts": counts(cells)}
            for (panel, row), cells in _by_row(request, status).items()
        ],
        "cells": {each.cell.id: told(each) for each in status.seen},
        "seconds_left": status.left,
        "cells_of_unknown_time": status.unknown,
    }
