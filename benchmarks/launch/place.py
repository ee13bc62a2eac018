"""Where cells are to run: the device, what is known of it, and how many cells at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmarks.cell import Cell
from benchmarks.launch.requirements import source_of
from benchmarks.planning import calibration
from benchmarks.planning.calibration import Calibration
from benchmarks.planning.devices import KnownDevice, device_called, known_device
from benchmarks.planning.kinds import Kind
from benchmarks.planning.packing import Packing
from benchmarks.runtime import Runtime, cores

if TYPE_CHECKING:
    from benchmarks.launch.launcher import Launcher


@dataclass(frozen=True)
class Place:
    """Where the cells are to run."""

    device: str  # torch's name of it
    name: str  # of the GPU, or how many cores
    label: str  # the device for a person
    hardware: Mapping[str, Any]  # as in a card; empty where it is not known
    workers: int  # processes, on all devices together
    threads: int  # of each
    why: str  # so many workers
    count: int | None = 1  # devices; None where only the launcher knows
    memory: float | None = None  # bytes of one
    known: Calibration | None = None
    peak: KnownDevice | None = None
    packing: Packing | None = None

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def can_tell(self) -> bool:
        return self.known is not None or self.peak is not None

    @property
    def at_once(self) -> int:
        """Cells that share a device."""
        return max(1, self.workers // (self.count or self.workers))


def known_place(runtime: Runtime, name: str) -> Place:
    """One device of the config group ``device``, which need not be here."""
    peak = known_device(name)
    label = f"{peak.gpu}, not looked for here"
    workers = runtime.workers or 1
    why = "as asked for" if runtime.workers else "one a GPU"
    return Place("cuda", peak.gpu, label, {}, workers, 1, why, 1, peak.memory_bytes, peak=peak)


def place_of(
    cells: Sequence[Cell],
    runtime: Runtime,
    waiting: int,
    launcher: Launcher | None = None,
    device: str | None = None,
) -> Place:
    """Where the launcher will run these cells, of which so many are waiting; by default asks the runtime's own."""
    launcher = launcher or runtime.launcher.build()
    assert launcher is not None
    device = launcher.prepare(runtime) if device is None else device
    here = launcher.hardware(device)
    if not here:
        workers = launcher.worker_count(runtime, device, waiting)
        label = f"{device} (of launcher={runtime.launcher.name})"
        why = "as asked for" if runtime.workers else "as the launcher has room for"
        return Place(device, label, label, {}, workers, launcher.thread_count(runtime, device), why, None)
    known = calibration.read(runtime.store_folder, device)
    packing = packing_of(known, cells, runtime)
    count = launcher.worker_count(replace(runtime, workers=0), device, waiting)
    count = count if device.startswith("cuda") else 1
    chosen, why = _workers(runtime, packing, count, device)
    name = here.get("gpu") or f"{cores()} cores"
    label = f"{device} ({here.get('gpu') or '{}, {} cores'.format(here['processor'], here['cores'])})"
    workers, threads = launcher.worker_count(chosen, device, waiting), launcher.thread_count(chosen, device)
    peak = device_called(here["gpu"]) if "gpu" in here else None
    return Place(
        device, name, label, here, workers, threads, why, count, _memory(device), known, peak, packing
    )


def _memory(device: str) -> float:
    if device.startswith("cuda"):
        import torch

        return float(torch.cuda.get_device_properties(device).total_memory)
    import psutil

    return float(psutil.virtual_memory().total)


def _workers(runtime: Runtime, packing: Packing | None, devices: int, device: str) -> tuple[Runtime, str]:
    """``workers=0``: the packing that this machine's calibration found for such cells, else one a GPU or a core."""
    if runtime.workers:
        return runtime, "as asked for"
    if packing is None:
        each = "GPU" if device.startswith("cuda") else "core"
        return runtime, f"one a {each}; `weightaug calibrate` finds how many are best"
    best = packing.best
    why = f"by the calibration of this machine: {best.gain:.2f} times the cells an hour of one at a time"
    return replace(runtime, workers=best.workers * devices), why


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
