"""`weightaug reproduce` and `weightaug report`: from a table's name to its cells, their cards and the report."""

from __future__ import annotations

import dataclasses
import os
import shlex
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks import registry
from benchmarks.cell import Cell
from benchmarks.config import load
from benchmarks.errors import UserError
from benchmarks.results.card import Card
from benchmarks.results.provenance import command_line
from benchmarks.results.store import Store, read_card
from benchmarks.runtime import Runtime
from benchmarks.tables.published import Published, load_published
from benchmarks.tables.table import FULL, Row, Table, load_table
from benchmarks.terminal import note

WIDTH = 120
RESTARTS = 2
RUNTIME_KEYS = {field.name for field in dataclasses.fields(Runtime)}
NAMED_BY_TABLE = ("seed", "scale", "method", "model")
Place = tuple[str, str, int]
"""(panel, row, seed): where in a table a card belongs."""


@dataclass(frozen=True)
class Request:
    """What a person asked for: a table at a scale, with the cells that fill it."""

    table: Table
    scale: str
    seeds: tuple[int, ...]
    cells: dict[str, Cell]  # by id
    places: dict[Place, str]  # which cell's id fills which place
    runtime: Runtime
    reports: Path
    command: str  # what the person typed, for the cards
    again: str  # what makes the report again

    @classmethod
    def parse(
        cls,
        name: str,
        scale: str,
        seeds: int | None,
        extra_rows: Sequence[str],
        overrides: Sequence[str],
        reports: str,
    ) -> Request:
        """Compose every cell of the table; any unknown name or key is an error here, before anything runs."""
        table = load_table(registry.lookup("table", name).path, name).at(scale)
        table = dataclasses.replace(table, rows=(*table.rows, *map(_extra_row, dict.fromkeys(extra_rows))))
        count = table.scale(scale).seeds if seeds is None else seeds
        if count < 1:
            raise UserError(f"--seeds {count}: at least one seed is needed")
        cells: dict[str, Cell] = {}
        places: dict[Place, str] = {}
        runtime = load(overrides)[1]
        changes = _changes(overrides, scale)
        if changes:
            table = dataclasses.replace(
                table, notes=(*table.notes, f"Changed from the table: {', '.join(changes)}.")
            )
        for planned in table.cells(scale, range(count)):
            cell, _ = load((*planned.overrides, *overrides))
            cells[cell.id] = cell
            for row in planned.rows:
                places[planned.panel, row, planned.seed] = cell.id
        again = ["weightaug", "reproduce", name, "--scale", scale, "--seeds", str(count)]
        again += [part for row in dict.fromkeys(extra_rows) for part in ("--with", row)] + changes
        seen = tuple(range(count))
        return cls(
            table, scale, seen, cells, places, runtime, Path(reports), command_line(), shlex.join(again)
        )

    def published(self) -> Published | None:
        """The published numbers of the table, where there are any."""
        if self.table.published is None:
            return None
        return load_published(registry.lookup("published", self.table.published).path)

    def cards(self, read: Callable[[str, Cell], Card | None]) -> Mapping[Place, Card | None]:
        """The card of every place; None where there is none yet."""
        found = {cell_id: read(cell_id, cell) for cell_id, cell in self.cells.items()}
        return {place: found[cell_id] for place, cell_id in self.places.items()}


def reproduce(request: Request) -> int:
    """Train what is missing, then write the report. Returns 1 if some cell failed, else 0."""
    from benchmarks.launch import workers
    from benchmarks.launch.progress import Watch

    device = _check(request)
    store = Store(request.runtime.store_folder)
    cells = list(request.cells.values())
    for cell in cells:
        store.read(cell.id, cell)  # sets damaged cards aside, so that their cells are run again
    session = uuid.uuid4().hex
    watch = Watch(cells, store, session)
    note(
        f"{request.table.name} at scale {request.scale}: {len(cells)} cells, {len(watch.done)} finished before; "
        f"{request.runtime.worker_count(device)} worker(s) on {device}, store {store.folder}"
    )
    begun = time.monotonic()
    for _ in range(RESTARTS + 1):
        processes = workers.start(
            cells, request.runtime, device, request.table.name, request.command, session
        )
        with workers.attended(processes):
            watch.follow(partial(_any_alive, processes))
            for process in processes:
                process.join()
        if len(watch.done) + len(watch.failed) == len(cells):
            break
        codes = ", ".join(sorted({str(process.exitcode) for process in processes}))
        note(f"workers ended with cells left to do (exit codes {codes}); starting new ones")
    note(f"{len(watch.done)} of {len(cells)} cells finished, {time.monotonic() - begun:.0f} s")
    cards = request.cards(store.read)
    if any(cards.values()):
        _write(request, cards)
        _mirror(request, cards, request.published())
    for cell_id, error in watch.failed.items():
        note(
            f"failed: {request.cells[cell_id].label}: {error} (details: {store.work(cell_id) / 'failure.json'})"
        )
    missing = sum(1 for cell in cells if not store.has(cell.id))
    if missing:
        note(f"{missing} cells are missing from the report; run the same command again to try them once more")
    return 1 if missing else 0


def _any_alive(processes: Sequence[BaseProcess]) -> bool:
    return any(process.is_alive() for process in processes)


def report(request: Request, folder: str | None) -> int:
    """Write the report from the cards in the store, or in ``folder``. Trains nothing."""
    if folder is not None and not Path(folder).is_dir():
        raise UserError(f"--cards {folder}: no such folder")
    store = Store(request.runtime.store_folder) if folder is None else None
    cards = request.cards(
        store.read if store else lambda cell_id, cell: read_card(Path(str(folder)) / f"{cell_id}.json", cell)
    )
    if not any(cards.values()):
        where = folder or request.runtime.store_folder / "cards"
        raise UserError(
            f"no card of {request.table.name} at scale {request.scale} in {where}; train them with "
            f"`weightaug reproduce {request.table.name} --scale {request.scale}`, or name a folder with --cards"
        )
    _write(request, cards)
    return 0


def _changes(overrides: Sequence[str], scale: str) -> list[str]:
    """Those overrides that change what the cells are; what a row, a panel or a seed is called must stay true."""
    changes = [text for text in overrides if text.partition("=")[0] not in RUNTIME_KEYS]
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


def _check(request: Request) -> str:
    """Whether the request can run here; one error that names all that is missing. Returns the device."""
    from benchmarks.launch.run_cell import preflight

    problems = []
    device = request.runtime.resolve_device()
    if request.table.scale(request.scale).needs_gpu and device == "cpu":
        problems.append("a CUDA device (none is used)")
    first_seed = {(c.method.name, str(c.method.arguments), c.model.name): c for c in request.cells.values()}
    for cell in first_seed.values():
        problems += [problem for problem in preflight(cell, request.runtime) if problem not in problems]
    folder = request.reports / request.scale
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise UserError(f"the folder for reports {folder} can't be written to; choose another with --reports")
    if problems:
        smaller = [name for name in request.table.scales if name != request.scale]
        hint = f"; or choose a smaller scale: SCALE={smaller[-1]} (--scale {smaller[-1]})" if smaller else ""
        raise UserError(
            f"{request.table.name} at scale {request.scale} can't run here, it lacks: {'; '.join(problems)}{hint}"
        )
    return device


def _write(request: Request, cards: Mapping[Place, Card | None]) -> None:
    """Write the report and show its main table."""
    from rich.console import Console

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
        request.again,
    )
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH  # rich assumes 80 columns, which breaks the table
    console.print(terminal_table(request.table, request.scale, request.seeds, cards, published))
    print(f"report: {path}")


def _mirror(request: Request, cards: Mapping[Place, Card | None], published: Published | None) -> None:
    """Send the report's table to W&B, as a run of its own in the table's group."""
    from benchmarks.reports.evidence import gather
    from benchmarks.results.wandb_mirror import Mirror

    evidence = gather(request.table, request.scale, request.seeds, cards, published)
    rows = [
        [
            panel,
            line.row.title,
            number.column.label,
            number.published and number.published.value,
            number.sample.mean,
            number.sample.spread,
            number.sample.runs,
            str(number.finding.verdict),
        ]
        for panel, lines in evidence.lines.items()
        for line in lines
        for number in line.numbers
    ]
    columns = ["panel", "row", "column", "published", "mean", "standard deviation", "runs", "verdict"]
    mirror = Mirror(request.runtime.wandb, request.runtime.store_folder, request.table.name)
    name = f"report-{request.table.name.replace('/', '-')}-{request.scale}"
    mirror.start(f"{name}-{uuid.uuid4().hex[:8]}", name, {"scale": request.scale}, job_type="report")
    mirror.table("report", columns, rows)
