"""The part of a plan that says what the rows cost: hours, memory, disk, and how to lay the cells out on the devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table as RichTable

from benchmarks.cell import Cell
from benchmarks.launch.estimate import CALIBRATED, FLOPS, MEASURED, PEAK, SCALED, UNKNOWN, total
from benchmarks.launch.forecast import Forecast
from benchmarks.launch.place import Place
from benchmarks.planning.disk import disk_of
from benchmarks.planning.memory import PARTS, shown
from benchmarks.planning.network import network_of

SHORT = {
    MEASURED: "cards",
    CALIBRATED: "calibration",
    SCALED: "calibration, FLOPs",
    FLOPS: "cards, FLOPs",
    PEAK: "peak rate",
    UNKNOWN: "-",
}


def by_row(
    lines: Mapping[tuple[str, str], Sequence[tuple[Cell, float]]], forecast: Forecast, place: Place
) -> RichTable:
    """For each panel and row what its cells still cost.

    Args:
        lines: the cells of each (panel, row), with the share of each that is left.
    """
    table = RichTable("panel", "row", box=None, header_style="bold")
    hours = "GPU hours" if place.on_gpu else "hours of this machine"
    for head in (hours, "memory of a cell"):
        table.add_column(head, justify="right")
    table.add_column("hours from")
    table.add_column("memory from")
    for (panel, row), cells in lines.items():
        left = total((forecast.seconds(cell), share) for cell, share in cells)
        needs = [need(forecast, cell) for cell, _ in cells]
        bases = " and ".join(dict.fromkeys(SHORT[basis] for basis in left.by_basis))
        took = f"{'>= ' if PEAK in left.by_basis else ''}{left.seconds / place.at_once * place.together / 3600:.3g}"
        told = left.unknown < sum(left.by_basis.values())
        most, source = max(needs, key=lambda pair: pair[0], default=(0.0, "-"))
        table.add_row(
            panel,
            row,
            took if told else "?" if cells else "-",
            shown(most) if cells else "-",
            bases or "-",
            source,
        )
    return table


def need(forecast: Forecast, cell: Cell) -> tuple[float, str]:
    """Bytes that a worker takes of the device for the cell, and how that is known."""
    measured = forecast.measured_bytes(cell)
    if measured is not None:
        return measured, "calibration"
    return forecast.memory(cell).in_parts(forecast.parts) + forecast.process_bytes, "computed"


def too_large(cells: Sequence[tuple[str, Cell]], forecast: Forecast, place: Place) -> Iterator[str]:
    """A line for each row, named by the text before its cell, that does not fit on one device; with what would."""
    if place.memory is None:
        return
    seen = set()
    for row, cell in cells:
        taken, _ = need(forecast, cell)
        if taken <= place.memory or row in seen:
            continue
        seen.add(row)
        yield (
            f"does not fit: {row}: {shown(taken)} a cell, {place.name} has {shown(place.memory)}; "
            f"{_would_fit(forecast, cell, place)}"
        )


def _would_fit(forecast: Forecast, cell: Cell, place: Place) -> str:
    """In how many parts of the batch it would; the devices that are here take as many as they can at once."""
    assert place.memory is not None
    batch = cell.recipe.batch_size
    most = int(
        cell.method.arguments.get("sub_batches", batch)
    )  # a method without sub-batches divides at will
    parts = forecast.memory(cell).parts_that_fit(place.memory - forecast.process_bytes, most)
    if parts is None:
        return f"nor do {most} parts of its batch; it takes a larger device"
    kind = forecast.kind(cell)[0]
    coupled = network_of(kind).batch_norm and cell.method.arguments.get("batch_norm") != "separate"
    here = parts if coupled or not (place.hardware and place.count) else place.count * place.together
    devices = max(n for n in PARTS if n <= min(parts, here))
    settings = [f"devices={devices}"] * (devices > 1) + [f"accumulate={parts // devices}"] * (devices < parts)
    instead = f", or accumulate={parts}" if devices == parts and not coupled else ""
    return f"{parts} parts of {batch // parts} images would: {' '.join(settings)}{instead}"


def layout(forecast: Forecast, cells: Sequence[Cell], place: Place) -> str:
    """How many cells at once on how many devices is cheapest, by what is known."""
    workers, devices = place.at_once, f"{place.gpus} x {place.name}" if place.on_gpu else place.name
    each = f"{workers} cell(s) at once on {'each' if place.on_gpu else 'them'}"
    if place.together > 1:
        unit = "of them" if place.on_gpu else "processes"
        each = f"{place.workers} cell(s) at once, each on {place.together} {unit} together"
    taken = max((need(forecast, cell)[0] for cell in cells), default=0.0)
    room = ""
    if place.memory is not None and taken:
        fitting = int(place.memory // taken)
        if 0 < fitting < workers:
            room = f"; the largest take {shown(taken)} each, of which {fitting} fit: workers={fitting}"
    return f"cheapest packing: {devices}, {each} ({place.why}){room}"


def disk(forecast: Forecast, cells: Sequence[Cell], place: Place) -> str:
    """What the cells will take of the disk."""
    kinds = [(forecast.memory(cell), forecast.kind(cell)[1], cell.evaluation.shifted) for cell in cells]
    taken = disk_of(kinds, place.workers, forecast.runtime.weights == "keep")
    parts = {"weights": taken.weights, "checkpoints meanwhile": taken.checkpoints}
    if taken.decoded:
        parts["decoded images"] = taken.decoded
    return "disk: " + ", ".join(f"{shown(size)} of {name}" for name, size in parts.items())


def explained(place: Place, told: set[str]) -> Iterator[str]:
    """Where the figures come from, a line each."""
    if place.known and told & {CALIBRATED, SCALED}:
        machine = ", ".join(map(str, place.known.machine))
        yield f"calibration: {place.known.created}, torch {place.known.torch}, {machine}"
    if place.together > 1 and place.on_gpu:
        yield (
            f"devices={place.together}: hours by calibration or peak as if steps were {place.together} times as fast; "
            "evaluations by the device with the most batches"
        )
    if place.peak and PEAK in told:
        yield (
            f"peak rate: a bound, no measurement: {place.peak.name} does no more by its maker's data sheet "
            f"({place.peak.source}); training takes longer"
        )
    yield (
        "memory computed: weights, gradients, optimizer, copies and activations as counted; not a GPU's context or "
        "the work space of its libraries"
    )
