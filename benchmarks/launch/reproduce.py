"""`weightaug reproduce` and `weightaug report`: from a table's name to its cells, their cards and the report."""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.errors import UserError
from benchmarks.launch.request import Position, Request
from benchmarks.results.card import Card
from benchmarks.results.reading import read_card
from benchmarks.results.store import Store
from benchmarks.runtime import torchrun_processes
from benchmarks.terminal import console, note, warn

if TYPE_CHECKING:
    from benchmarks.launch.launcher import Launcher, Work
    from benchmarks.launch.progress import Watch

__all__ = ["Request", "report", "reproduce"]

CARD_NAME = re.compile(r"[0-9a-f]{16}\.json")


def reproduce(request: Request) -> int:
    """Train what is missing, then write the report. Returns 1 if some cell failed, else 0."""
    from benchmarks.launch.estimate import Throughput, describe, total
    from benchmarks.launch.forecast import Forecast
    from benchmarks.launch.launcher import Work
    from benchmarks.launch.place import place_of
    from benchmarks.launch.progress import Watch
    from benchmarks.launch.report_mirror import mirror_report
    from benchmarks.launch.shares import check_shares

    runtime, table = request.runtime, request.table.name
    if torchrun_processes() > 1:
        if os.environ["RANK"] != "0":
            sys.exit(2)  # the first one tells why
        raise UserError(
            "torchrun trains one cell, with `weightaug run`; a table's cells meet in the store alone"
        )
    check_shares(request)
    launcher = runtime.launcher.build()
    device = _check(request, launcher)
    store = Store.of(runtime)
    cells = [request.cells[cell_id] for cell_id in request.asked]
    found = {
        cell.id: store.read(cell.id, cell) for cell in cells
    }  # sets damaged cards aside: they are run again
    store.failures.forgive(
        {cell.id for cell in cells}
    )  # who gives the command again wants them to be tried again
    watch = Watch(cells, store)
    place = place_of(cells, runtime, len(cells) - len(watch.done), launcher, device)
    count = place.workers
    throughput = Throughput(
        [card for card in found.values() if card], device, place.hardware, runtime.devices
    )
    forecast = Forecast(runtime, throughput, replace(place, peak=None))  # a bound is for plans
    left = total((forecast.seconds(cell), 1.0) for cell in cells if found[cell.id] is None)
    note(
        f"{table} at scale {request.scale}: {len(cells)} cells, {len(watch.done)} finished before; "
        f"{count} worker(s) on {device} ({place.why}), store {store.folder}; "
        f"expected: {describe(left, count, device, place.gpus)}"
    )
    begun = time.monotonic()
    work = Work(tuple(cells), runtime, device, place.threads, table, request.command)
    _train(launcher, work, count, watch)
    if not launcher.wait and len(watch.done) < len(cells):
        note(f"when they are done: {shlex.join(['weightaug', 'report', *request.whole[2:]])}")
        return 0
    note(f"{len(watch.done)} of {len(cells)} cells finished, {time.monotonic() - begun:.0f} s")
    cards = request.cards(store.read)
    if any(cards.values()):
        mirror_report(request, cards, _write(request, cards))
    for cell_id, error in watch.failed.items():
        note(
            f"failed: {request.cells[cell_id].label}: {error} (details: {store.work(cell_id) / 'failure.json'})"
        )
    missing = sum(1 for cell in cells if not store.has(cell.id))
    if missing:
        note(f"{missing} cells are missing from the report; run the same command again to try them once more")
    return 1 if missing else 0


def _train(launcher: Launcher, work: Work, count: int, watch: Watch) -> None:
    """Have ``count`` workers do what is left, and follow them unless nobody waits."""
    from benchmarks.launch.group import attended

    retries = work.runtime.retries
    in_vain = 0  # a cell that kills its worker takes as many rounds as it has tries, and one more
    while left := len(work.cells) - len(watch.done) - len(watch.failed):
        with attended(launcher):
            launcher.start(work, min(count, left))
            if not launcher.wait:
                return
            watch.follow(launcher.alive)
        settled = left + len(watch.done) + len(watch.failed) - len(work.cells)
        if settled == left:
            return
        in_vain = 0 if settled else in_vain + 1
        again = launcher.restarts and in_vain < retries + 2
        note(
            f"workers ended with cells left to do: {launcher.ended()}"
            + ("; starting new ones" if again else "")
        )
        if not again:
            return
        Store.of(work.runtime)  # a disk that takes nothing any more is told once, here


def report(request: Request, folder: str | None) -> int:
    """Write the report from the cards in the store, or in ``folder``. Trains nothing."""
    if folder is not None and not Path(folder).is_dir():
        raise UserError(f"--cards {folder}: no such folder")
    where = Path(folder) if folder is not None else Store(request.runtime.store_folder, read_only=True).cards
    _name_strangers(where)
    cards = request.cards(lambda cell_id, cell: read_card(where / f"{cell_id}.json", cell))
    if not any(cards.values()):
        raise UserError(
            f"no card of {request.table.name} at scale {request.scale} in {where}; train them with "
            f"`weightaug reproduce {request.table.name} --scale {request.scale}`, or name a folder with --cards"
        )
    _write(request, cards)
    return 0


def _name_strangers(folder: Path) -> None:
    """Warn of files that are not named after a cell, such as a second card of one: they are not read."""
    for path in sorted(folder.glob("*.json")):
        if not CARD_NAME.fullmatch(path.name):
            warn(f"{path}: left out, for a card's file is named after its cell, 16 hexadecimal digits")


def _check(request: Request, launcher: Launcher) -> str:
    """Whether the request can run; one error that names all that is missing. Returns the workers' device."""
    from benchmarks.launch.run_cell import preflight

    problems = []
    device = launcher.prepare(request.runtime)
    if request.table.scale(request.scale).needs_gpu and device == "cpu":
        problems.append("a CUDA device (none is used)")
    asked = [request.cells[cell_id] for cell_id in request.asked]
    for cell in {cell.of_every_seed: cell for cell in asked}.values():
        problems += [problem for problem in preflight(cell, request.runtime) if problem not in problems]
    if problems:
        smaller = [name for name in request.table.scales if name != request.scale]
        hint = f"; or choose a smaller scale: SCALE={smaller[-1]} (--scale {smaller[-1]})" if smaller else ""
        raise UserError(
            f"{request.table.name} at scale {request.scale} can't run here, it lacks: {'; '.join(problems)}{hint}"
        )
    folder = request.reports / request.scale
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise UserError(f"the folder for reports {folder} can't be written to; choose another with --reports")
    return device


def _write(request: Request, cards: Mapping[Position, Card | None]) -> Path:
    """Write the report and show its main table; returns the report's path."""
    from benchmarks.reports.index import write_index
    from benchmarks.reports.render import write_report
    from benchmarks.reports.terminal import terminal_table

    published = request.published()
    path = write_report(
        request.table,
        request.scale,
        request.seeds,
        cards,
        published,
        request.reports / request.scale,
        request.again(cards),
    )
    write_index(request.reports)
    console().print(terminal_table(request.table, request.scale, request.seeds, cards, published))
    print(f"report: {path}")
    return path
