"""`weightaug calibrate` from its cells to the kept file and the tables that it prints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table as RichTable

from benchmarks.cell import Cell
from benchmarks.errors import UserError
from benchmarks.launch.estimate import duration
from benchmarks.launch.requirements import source_of
from benchmarks.planning import calibration
from benchmarks.planning.calibrate import Asked, Calibrating, asked_of
from benchmarks.planning.calibration import Calibration
from benchmarks.planning.kinds import Kind, work_of
from benchmarks.planning.memory import shown
from benchmarks.results.store import Store
from benchmarks.runtime import Runtime, cores
from benchmarks.terminal import console, note

STANDARD = [
    [f"method={method}", "model=resnet18_cifar", "recipe=resnet_cifar", "dataset=cifar10"]
    for method in ("sgd", "damp", "sam")
]
"""What is measured where no table is named."""
WIDTH = 150
LEAST_SECONDS = 5.0


def calibrate(cells: Sequence[Cell], runtime: Runtime, seconds: float) -> int:
    """Measure, print what was found, and keep it in the store. Returns 0."""
    if not seconds >= LEAST_SECONDS:
        raise UserError(f"--seconds {seconds:g}: at least {LEAST_SECONDS:g} are needed")
    device = runtime.resolve_device()
    store = Store(runtime.store_folder)
    begun = time.monotonic()
    before = calibration.read(store.folder, device)

    def keep(found: Calibration) -> Path:
        return calibration.keep(store.folder, device, found)

    calibrating = Calibrating(device, runtime.engine, seconds, note, runtime.threads, keep)
    asked = asked_of((cell, source_of(cell, runtime)) for cell in cells)
    found = calibrating.calibrate(asked, before.measured if before else ())
    console(WIDTH).print(_kinds(found, "memory of the process" if device == "cpu" else "memory"))
    derived = [one for one in found.kinds.values() if one.derived_from]
    if derived:
        print(
            f"{len(derived)} of {len(found.kinds)} kinds were not measured: their times are another's, by FLOPs"
        )
    for line in _packings(found, asked, cells, runtime):
        print(line)
    where = ", ".join(map(str, found.machine))
    print(
        f"device: {device} ({where}), torch {found.torch}; a worker process starts in {found.worker_seconds:.1f} s and "
        f"takes {shown(found.worker_bytes)}"
    )
    print(f"kept: {keep(found)} ({time.monotonic() - begun:.0f} s)")
    return 0


def _kinds(found: Calibration, memory: str) -> RichTable:
    table = RichTable("kind", box=None, header_style="bold")
    for head in ("steps/s", "test images/s", "start", memory, "computed"):
        table.add_column(head, justify="right")
    table.add_column("from")
    for figures in found.kinds.values():
        peak = "-" if figures.memory_bytes is None else shown(figures.memory_bytes)
        source = f"measured, {figures.engine}, batch {figures.batch}"
        if figures.derived_from:
            source = f"FLOPs and {figures.derived_from}"
        table.add_row(
            figures.label,
            f"{1 / figures.step_seconds:.3g}",
            f"{figures.evaluated_per_second:.3g}",
            f"{figures.start_seconds:.1f} s",
            peak,
            shown(figures.computed.total),
            source,
        )
    return table


def _packings(
    found: Calibration, asked: Sequence[Asked], cells: Sequence[Cell], runtime: Runtime
) -> list[str]:
    lines = []
    for one in asked:
        packing, figures = found.packings.get(one.kind.key), found.kinds[one.kind.key]
        if packing is None:
            continue
        alone = _alone(one, cells, runtime, found)
        for level in packing.levels:
            text = (
                f"  {level.workers} at once, {runtime.threads or max(1, cores() // level.workers)} thread(s) each: "
                f"{level.gain:.2f} times the cells of one at a time"
            )
            if alone:
                text += f", {3600 / alone * level.gain:.3g} an hour"
            lines.append(text)
        best = packing.best.workers
        lines.insert(len(lines) - len(packing.levels), f"packing of {figures.label}:")
        lines.append(f"best: workers={best} ({packing.stopped})")
        if alone:
            lines.append(f"one cell by itself: about {duration(alone)}")
    return lines


def _alone(one: Asked, cells: Sequence[Cell], runtime: Runtime, found: Calibration) -> float | None:
    """Seconds of a cell of the kind by itself; None where the size of its data set is not known."""
    for cell in cells:
        source = source_of(cell, runtime)
        if Kind.of(cell, source).key == one.kind.key:
            work = work_of(cell, source)
            return found.kinds[one.kind.key].cell_seconds(work) if work else None
    return None
