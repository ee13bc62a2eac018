"""Where cells are to run: the device, what is known of it, and how many cells at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from benchmarks.cell import Cell
from benchmarks.launch.requirements import source_of
from benchmarks.planning import calibration
from benchmarks.planning.calibration import Calibration
from benchmarks.planning.devices import KnownDevice, device_called, known_device
from benchmarks.planning.kinds import Kind
from benchmarks.planning.packing import Packing
from benchmarks.runtime import Runtime, cores


def packing_of(known: Calibration | None, cells: Iterable[Cell], runtime: Runtime) -> Packing | None:
    """The packing of the heaviest of these cells' kinds that one was measured for; None without."""
    if known is None or not known.packings:
        return None
    kinds = {}
    for cell in {json.dumps({**cell.as_dict(), "seed": 0}): cell for cell in cells}.values():
        kind = Kind.of(cell, source_of(cell, runtime))
        kinds[kind.key] = kind
    fitting = [key for key in kinds if key in known.packings and key in known.kinds]
    heaviest = max(fitting, key=lambda key: known.kinds[key].step_seconds, default=None)
    return None if heaviest is None else known.packings[heaviest]


@dataclass(frozen=True)
class Workers:
    """How many worker processes there will be, and why."""

    runtime: Runtime  # with their number in it
    packing: Packing | None
    why: str


def choose_workers(cells: Sequence[Cell], runtime: Runtime, device: str) -> Workers:
    """``workers=0``: the packing that this machine's calibration found for such cells, else one a GPU or a core."""
    known = calibration.read(runtime.store_folder, device)
    packing = packing_of(known, cells, runtime)
    if runtime.workers:
        return Workers(runtime, packing, "as asked for")
    if packing is None:
        each = "GPU" if device.startswith("cuda") else "core"
        why = f"one a {each}; `weightaug calibrate` finds how many are best"
        return Workers(runtime, None, why)
    best = packing.best
    why = f"by the calibration of this machine: {best.gain:.2f} times the cells an hour of one at a time"
    return Workers(replace(runtime, workers=best.workers), packing, why)


@dataclass(frozen=True)
class Place:
    """Where the cells are to run."""

    device: str  # torch's name of it
    name: str
    count: int  # of such devices at hand
    memory: float | None  # bytes of one
    known: Calibration | None
    peak: KnownDevice | None
    workers: Workers
    here: bool = True  # whether it is of this machine

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def can_tell(self) -> bool:
        return self.known is not None or self.peak is not None


def place_of(cells: Sequence[Cell], runtime: Runtime, on: str | None = None) -> Place:
    """This machine, or the known device called ``on``, of which one is assumed."""
    if on is not None:
        peak = known_device(on)
        return Place(
            "cuda", peak.gpu, 1, peak.memory_bytes, None, peak, Workers(runtime, None, "one a GPU"), False
        )
    device = runtime.resolve_device()
    workers = choose_workers(cells, runtime, device)
    known = calibration.read(runtime.store_folder, device)
    if device.startswith("cuda"):
        import torch

        name, count = torch.cuda.get_device_name(device), torch.cuda.device_count()
        memory = float(torch.cuda.get_device_properties(device).total_memory)
        return Place(device, name, count, memory, known, device_called(name), workers)
    import psutil

    memory = float(psutil.virtual_memory().total)
    return Place(device, f"{cores()} cores", 1, memory, known, None, workers)
