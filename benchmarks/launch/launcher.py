"""Who starts the workers of a table: processes here, jobs of Slurm, tasks of Ray.

A launcher is one class and one config in ``configs/launcher``, whose keys are the arguments of its constructor. It
changes no number and is no part of a cell's id. Its workers live as :func:`benchmarks.launch.workers.work` says.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.cell import Cell, Component
from benchmarks.errors import UserError
from benchmarks.launch import workers
from benchmarks.runtime import Runtime

IDLE_LEASES = 3.0
"""So many leases long a worker that holds what others could use stays when all cells left are with others; a dead
worker's cell is free for the next after one."""


@dataclass(frozen=True)
class Work:
    """What workers are to do; goes to their processes, on whatever machine."""

    cells: tuple[Cell, ...]
    runtime: Runtime
    device: str
    threads: int  # CPU threads of a worker
    group: str  # the table
    command: str  # what the person typed, for the cards
    idle_seconds: float = float("inf")  # see IDLE_LEASES

    def elsewhere(self) -> Work:
        """The same for processes that start in another folder, in which relative paths would mean others."""
        runtime = self.runtime
        folders = (runtime.store_folder, runtime.data_folder, runtime.cache_folder)
        store, data, cache = (_absolute(folder) for folder in folders)
        there = replace(runtime, store=store, data=data, cache=cache)
        cells = tuple(replace(cell, dataset=_anywhere(cell.dataset)) for cell in self.cells)
        return replace(self, cells=cells, runtime=there, idle_seconds=IDLE_LEASES * runtime.lease_seconds)

    def do(self) -> None:
        """Be a worker, in this process, until nothing is left to do."""
        workers.work(
            self.cells,
            self.runtime,
            self.device,
            self.threads,
            self.group,
            self.command,
            self.idle_seconds,
        )


def _absolute(path: Path | str) -> str:
    """Symbolic links are left: other machines may have them lead elsewhere."""
    return str(Path(path).expanduser().absolute())


def _anywhere(component: Component) -> Component:
    """With absolute paths of its files, which are no part of a cell's id."""
    paths = {name: _absolute(component.arguments[name]) for name in component.content}
    return replace(component, arguments={**component.arguments, **paths})


class Launcher(ABC):
    """Starts workers and looks after them.

    Attributes:
        restarts: whether the command starts new workers where some ended with cells left to do; if not, the engine
            does so.
        wait: whether the command stays until the workers end.
    """

    restarts = False
    wait = True

    @abstractmethod
    def prepare(self, runtime: Runtime) -> str:
        """See that workers can be started, and return their device, before anything is written or trained.

        Raises:
            UserError: what is missing, in one line.
        """

    def hardware(self, device: str) -> dict[str, Any]:
        """What is known of the machines that the workers will run on, as in a card."""
        return {}

    @abstractmethod
    def worker_count(self, runtime: Runtime, device: str, cells: int) -> int:
        """How many workers are started for so many cells: what the person says, or what there is room for."""

    @abstractmethod
    def thread_count(self, runtime: Runtime, device: str) -> int:
        """How many CPU threads each of them has."""

    @abstractmethod
    def start(self, work: Work, count: int) -> None:
        """Start ``count`` workers in the place of those that have ended."""

    @abstractmethod
    def alive(self) -> bool:
        """Whether any worker lives or will still be started. Asked twice a second."""

    @abstractmethod
    def stop(self) -> None:
        """Tell all workers to end with a checkpoint; they have :data:`benchmarks.launch.group.STOP_SECONDS` for it."""

    @abstractmethod
    def kill(self) -> None:
        """End those that are left at once."""

    @abstractmethod
    def ended(self) -> str:
        """Why the workers have ended, such as ``exit codes 0, 143``."""


def needed(package: str, extra: str) -> ModuleType:
    """An engine's package, or the error that names the extra of ours which brings it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"launcher={extra} needs the package {package}: `pip install 'weightaug[{extra}]'` ({error})"
        ) from error


def asked_device(runtime: Runtime, gpus: float | None, there: bool) -> tuple[str, float]:
    """The device of workers on other machines, and how many GPUs each needs.

    Args:
        gpus: what the person says; None: as many as train a cell together, if any.
        there: whether the machines have GPUs, as far as that is known.
    """
    if runtime.device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device={runtime.device}: elsewhere each worker sees its own GPUs; use device=cuda")
    wanted = runtime.device == "cuda" or (runtime.device == "auto" and there and gpus != 0)
    if wanted and gpus == 0:
        raise UserError("device=cuda needs launcher.gpus_per_worker above 0")
    if not wanted and gpus:
        raise UserError(
            f"device={runtime.device} uses no GPU here; leave launcher.gpus_per_worker={gpus:g} out"
        )
    if wanted and gpus is not None and runtime.devices > 1 and gpus != runtime.devices:
        raise UserError(
            f"devices={runtime.devices} needs launcher.gpus_per_worker={runtime.devices}, or none"
        )
    return ("cuda", float(runtime.devices if gpus is None else gpus)) if wanted else ("cpu", 0.0)
