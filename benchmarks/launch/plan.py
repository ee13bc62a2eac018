"""`weightaug reproduce TABLE --dry-run`: what is done, what is missing here, and how long the rest will take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.cell import Cell
from benchmarks.errors import one_line
from benchmarks.launch import outlook
from benchmarks.launch.estimate import PEAK, UNKNOWN, Throughput, describe, duration, total
from benchmarks.launch.forecast import Forecast
from benchmarks.launch.place import Place, known_place, place_of
from benchmarks.launch.request import Request
from benchmarks.launch.requirements import missing
from benchmarks.launch.shares import check_shares
from benchmarks.launch.status import by_row, unfinished
from benchmarks.results.card import Card, DamagedCardError
from benchmarks.results.reading import load_card
from benchmarks.results.store import Store
from benchmarks.runtime import Runtime
from benchmarks.terminal import console

STATES = ("finished", "diverged", "running", "failed", "waiting")


@dataclass(frozen=True)
class Planned:
    """A cell that is asked for, and how far it is."""

    cell: Cell
    state: str
    card: Card | None = None
    note: str = ""  # where it runs, why it failed, what is wrong with its card
    left: float = 1.0  # the share of it that is still to be done


def dry_run(request: Request, every_cell: bool, on: str | None = None) -> int:
    """Print the plan. Writes nothing and trains nothing.

    Args:
        every_cell: with each cell's id, state and label.
        on: known devices to plan for, see :func:`benchmarks.launch.place.known_place`; None: what the launcher has.
    """
    check_shares(request)
    runtime = request.runtime
    looked = {cell_id: look(request, cell_id) for cell_id in request.cells}
    plan = [looked[cell_id] for cell_id in request.asked]
    waiting = [found for found in plan if not found.card]
    place = (
        known_place(runtime, on) if on else place_of([found.cell for found in plan], runtime, len(waiting))
    )
    workers = place.workers
    cards = [found.card for found in looked.values() if found.card]
    throughput = _forecast(runtime, place, cards)
    told = {throughput.seconds(found.cell)[1] for found in waiting}
    if UNKNOWN in told and (runtime.store_folder / "cards").is_dir() and place.hardware:
        throughput = _forecast(runtime, place, [*cards, *_cards_of_other_scales(request)])
    counts = Counter(found.state for found in plan)
    shown = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    others = len(request.cells) - len(plan)
    print(
        f"{request.table.name} at scale {request.scale}: {len(plan)} cells: {shown}"
        + (f"; {others} more cells of the table are not asked for" if others else "")
    )
    screen = console()
    screen.print(_by_row(request, plan, throughput))
    for found in plan:
        if every_cell:
            print(f"{found.cell.id}  {found.state:8}  {found.cell.label}")
        if found.note:
            print(f"{found.state}: {found.cell.label}: {found.note}")
    left = total((throughput.seconds(found.cell), found.left) for found in waiting)
    print(f"store: {runtime.store_folder}; device: {place.label}; workers: {workers} ({place.why})")
    if place.can_tell and waiting:
        _print_costs(request, plan, throughput, place, screen)
    lacking = missing([found.cell for found in waiting], runtime)
    if request.table.scale(request.scale).needs_gpu and not place.on_gpu:
        lacking.insert(0, "a CUDA device (none is used)")
    for problem in lacking:
        print(_readable(problem))
    print(f"time left: {describe(left, workers, place.device, place.gpus)}")
    return 0


def _readable(problem: str) -> str:
    """What is missing: a line for each data set, and how to get its files below it, each on a line of its own."""
    first, *others = problem.split("; ")
    lines = [f"missing: {part}" if part.startswith("data set ") else f"    {part}" for part in others]
    return "\n".join([f"missing: {first}", *lines])


def _forecast(runtime: Runtime, place: Place, cards: Iterable[Card]) -> Forecast:
    """What can be told of the cells' times: of a device that is not known here the cards say nothing."""
    return Forecast(
        runtime,
        Throughput(cards if place.hardware else [], place.device, place.hardware, runtime.devices),
        place,
    )


def _print_costs(
    request: Request, plan: list[Planned], forecast: Forecast, place: Place, screen: Console
) -> None:
    """Hours and memory of each row, what does not fit, disk and packing."""
    rows = {
        (panel, row): [(found.cell, found.left) for found in cells if not found.card]
        for (panel, row), cells in by_row(request, ((found.cell.id, found) for found in plan)).items()
    }
    waiting = [found.cell for found in plan if not found.card]
    screen.print(outlook.by_row(rows, forecast, place))
    named = [(f"{panel}, {row}", cell) for (panel, row), cells in rows.items() for cell, _ in cells]
    for line in outlook.too_large(named, forecast, place):
        print(line)
    print(outlook.layout(forecast, waiting, place))
    print(outlook.disk(forecast, waiting, place))
    for line in outlook.explained(place, {forecast.seconds(cell)[1] for cell in waiting}):
        print(line)


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


def _by_row(request: Request, plan: list[Planned], throughput: Forecast) -> RichTable:
    """For each panel and row, how many cells are how far."""
    table = RichTable("panel", "row", box=None, header_style="bold")
    for head in ("cells", *STATES, "time left"):
        table.add_column(head, justify="right")
    for (panel, title), cells in by_row(request, ((found.cell.id, found) for found in plan)).items():
        counts = Counter(found.state for found in cells)
        left = total((throughput.seconds(found.cell), found.left) for found in cells if not found.card)
        bound = "≥ " if PEAK in left.by_basis else ""
        time_left = f"{bound}{duration(left.seconds)}" if not left.unknown else "?"
        numbers = [str(counts[state] or "-") for state in STATES]
        table.add_row(panel, title, str(len(cells)), *numbers, time_left if left.by_basis else "-")
    return table
