"""`weightaug reproduce TABLE --dry-run`: what is done, what is missing here, and how long the rest will take."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.cell import Cell
from benchmarks.errors import one_line
from benchmarks.launch.estimate import UNKNOWN, Throughput, describe, duration, total
from benchmarks.launch.request import Request
from benchmarks.launch.requirements import missing
from benchmarks.launch.status import by_row, unfinished
from benchmarks.results.card import Card, DamagedCardError
from benchmarks.results.reading import load_card
from benchmarks.results.store import Store

STATES = ("finished", "diverged", "running", "failed", "waiting")
WIDTH = 120


@dataclass(frozen=True)
class Planned:
    """A cell that is asked for, and how far it is."""

    cell: Cell
    state: str
    card: Card | None = None
    note: str = ""  # where it runs, why it failed, what is wrong with its card
    left: float = 1.0  # the share of it that is still to be done


def dry_run(request: Request, every_cell: bool) -> int:
    """Print the plan; ``every_cell``: with each cell's id, state and label. Writes nothing and trains nothing."""
    runtime, launcher = request.runtime, request.runtime.launcher.build()
    device = launcher.prepare(runtime)
    looked = {cell_id: look(request, cell_id) for cell_id in request.cells}
    plan = [looked[cell_id] for cell_id in request.asked]
    here = launcher.hardware(device)
    cards = [found.card for found in looked.values() if found.card]
    throughput = Throughput(cards, device, here)
    told = [throughput.seconds(found.cell)[1] for found in plan if not found.card]
    if UNKNOWN in told and (runtime.store_folder / "cards").is_dir():
        throughput = Throughput([*cards, *_cards_of_other_scales(request)], device, here)
    workers = launcher.worker_count(runtime, device, sum(not found.card for found in plan))
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDTH  # rich assumes 80 columns, which breaks the table
    counts = Counter(found.state for found in plan)
    shown = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    others = len(request.cells) - len(plan)
    print(
        f"{request.table.name} at scale {request.scale}: {len(plan)} cells: {shown}"
        + (f"; {others} more cells of the table are not asked for" if others else "")
    )
    console.print(_by_row(request, plan, throughput))
    for found in plan:
        if every_cell:
            print(f"{found.cell.id}  {found.state:8}  {found.cell.label}")
        if found.note:
            print(f"{found.state}: {found.cell.label}: {found.note}")
    left = total((throughput.seconds(found.cell), found.left) for found in plan if not found.card)
    where = f"{here['processor']}, {here['cores']} cores" if here else f"of launcher={runtime.launcher.name}"
    where = here.get("gpu", where)
    print(f"store: {runtime.store_folder}; device: {device} ({where}); workers: {workers}")
    lacking = missing([found.cell for found in plan if not found.card], runtime)
    if request.table.scale(request.scale).needs_gpu and device == "cpu":
        lacking.insert(0, "a CUDA device (none is used)")
    for problem in lacking:
        print(f"missing: {problem}")
    print(f"time left: {describe(left, workers, device)}")
    return 0


def _cards_of_other_scales(request: Request) -> list[Card]:
    """The table's cards in the store at its other scales."""
    scales = [scale for scale in request.table.scales if scale != request.scale]
    others = [Request.parse(request.table.name, scale, None, [], [], "") for scale in scales]
    found = [
        look(replace(other, runtime=request.runtime), cell_id) for other in others for cell_id in other.cells
    ]
    return [planned.card for planned in found if planned.card]


def look(request: Request, cell_id: str) -> Planned:
    """How far a cell is, by the files of its own in the store."""
    cell, folder = request.cells[cell_id], request.runtime.store_folder
    try:
        card = load_card(folder / "cards" / f"{cell_id}.json", cell)
        return Planned(cell, card["status"], card, left=0.0)
    except FileNotFoundError:
        damage = ""
    except DamagedCardError as error:
        damage = f"damaged card ({one_line(error)}), which will be set aside and its cell run again"
    if not (folder / "cards").is_dir():
        return Planned(cell, "waiting", note=damage)
    store = Store(folder, read_only=True)
    seen = unfinished(store, cell)
    left = 1.0 - seen.beat["fraction"] if seen.beat else 1.0
    return Planned(cell, seen.state, note=seen.note or damage, left=left)


def _by_row(request: Request, plan: list[Planned], throughput: Throughput) -> RichTable:
    """For each panel and row, how many cells are how far. Rows that share their cells share a line."""
    lines = by_row(request, ((found.cell.id, found) for found in plan))
    table = RichTable("panel", "row", box=None, header_style="bold")
    for head in ("cells", *STATES, "time left"):
        table.add_column(head, justify="right")
    for (panel, title), cells in lines.items():
        counts = Counter(found.state for found in cells)
        left = total((throughput.seconds(found.cell), found.left) for found in cells if not found.card)
        time_left = duration(left.seconds) if not left.unknown else "?"
        numbers = [str(counts[state] or "-") for state in STATES]
        table.add_row(panel, title, str(len(cells)), *numbers, time_left if left.by_basis else "-")
    return table
