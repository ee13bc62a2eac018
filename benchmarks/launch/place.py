"""Where cells are to run: the device, what is known of it, and how many cells at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmarks.cell import Cell
from benchmarks.errors import UserError
from benchmarks.launch.requirements import source_of
from benchmarks.planning import calibration
from benchmarks.planning.calibration import Calibration
from benchmarks.planning.devices import KnownDevice, device_called, known_device
from benchmarks.planning.kinds import Kind
from benchmarks.planning.packing import Packing
from benchmarks.runtime import Runtime, cores

if TYPE_CHECKING:
    from benchmarks.launch.launcher import Launcher

NUMBER = re.compile(r"(?:0*([1-9]\d*)x)?(.*)")
"""How many of a known device there are, and its name."""


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
    count: int | None = (
        1  # devices, or groups of them that train a cell together; None where only the launcher knows
    )
    together: int = 1  # devices of such a group
    memory: float | None = None  # bytes of one
    known: Calibration | None = None
    peak: KnownDevice | None = None
    packing: Packing | None = None

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def gpus(self) -> int | None:
        """Of all workers together; None where only the launcher knows."""
        return min(self.count, self.workers) * self.together if self.count else None

    @property
    def can_tell(self) -> bool:
        return self.known is not None or self.peak is not None

    @property
    def at_once(self) -> int:
        """Cells that share a device."""
        return max(1, self.workers // (self.count or self.workers))


def known_place(runtime: Runtime, name: str) -> Place:
    """Devices of the config group ``device``, which need not be here: ``h200``, or ``8xh200`` for eight of them.

    Without a number there are as many as train a cell together.
    """
    number, kind = NUMBER.fullmatch(name).groups()  # type: ignore[union-attr] # fits everything
    peak = known_device(kind)
    devices = runtime.devices if number is None else int(number)
    if devices < runtime.devices:
        raise UserError(
            f"devices={runtime.devices} takes {runtime.devices} GPUs, and --on {name} has {devices}; use fewer, or "
            f"--on {runtime.devices}x{kind}"
        )
    count = devices // runtime.devices
    label = f"{devices} x {peak.gpu}, not looked for here"
    if runtime.devices > 1 and runtime.workers > count:
        raise UserError(
            f"workers={runtime.workers} devices={runtime.devices} takes {runtime.workers * runtime.devices} GPUs, and "
            f"--on {name} has {devices}; use --on {runtime.workers * runtime.devices}x{kind}"
        )
    workers = runtime.workers or count
    why = "as asked for" if runtime.workers else _one_each(runtime, "GPU")
    return Place(
        "cuda", peak.gpu, label, {}, workers, 1, why, count, runtime.devices, peak.memory_bytes, peak=peak
    )


def _one_each(runtime: Runtime, unit: str) -> str:
    return f"one a {unit}" if runtime.devices == 1 else f"one for every {runtime.devices} {unit}s"


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
    # What was measured is one device's; a group of them trains one cell at a time.
    packing = packing_of(known, cells, runtime) if runtime.devices == 1 else None
    count = launcher.worker_count(replace(runtime, workers=0), device, waiting)
    count = count if device.startswith("cuda") else 1
    chosen, why = _workers(runtime, packing, count, device)
    name = here.get("gpu") or f"{cores()} cores"
    label = f"{device} ({here.get('gpu') or '{}, {} cores'.format(here['processor'], here['cores'])})"
    workers, threads = launcher.worker_count(chosen, device, waiting), launcher.thread_count(chosen, device)
    peak = device_called(here["gpu"]) if "gpu" in here else None
    return Place(
        device,
        name,
        label,
        here,
        workers,
        threads,
        why,
        count,
        runtime.devices,
        _memory(device),
        known,
        peak,
        packing,
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
        best = "; `weightaug calibrate` finds how many are best" if runtime.devices == 1 else ""
        return runtime, _one_each(runtime, each) + best
    found = packing.best
    why = f"by the calibration of this machine: {found.gain:.2f} times the cells an hour of one at a time"
    return replace(runtime, workers=found.workers * devices), why


def packing_of(known: Calibration | None, cells: Iterable[Cell], runtime: Runtime) -> Packing | None:
    """The packing of the heaviest of these cells' kinds that one was measured for; None without."""
    if known is None or not known.packings:
        return None
    kinds = {}
    for cell in {cell.of_every_seed: cell for cell in cells}.values():
        kind = Kind.of(cell, source_of(cell, runtime))
        kinds[kind.key] = kind
    fitting = [key for key in kinds if key in known.packings and key in known.kinds]
    heaviest = max(fitting, key=lambda key: known.kinds[key].step_seconds, default=None)
    return None if heaviest is None else known.packings[heaviest]
