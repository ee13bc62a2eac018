"""How and where a cell is run. Nothing here may change a number, so nothing here is part of a cell's id."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.cell import Component
from benchmarks.errors import UserError, unknown_name

DATA_VARIABLE = "WEIGHTAUG_DATA"
DEVICES = ("auto", "cpu", "cuda")
WANDB_MODES = ("online", "offline", "disabled")
WEIGHTS = ("keep", "drop")
LOCAL = "benchmarks.launch.launchers.local.Local"
MIXED_VERSIONS = ("refuse", "allow")
LEAST_LEASE = 5.0
ENGINES = ("auto", "eager", "compiled", "graph")


@dataclass(frozen=True)
class Runtime:
    """Settings of the machine, given as ``key=value`` like those of a cell."""

    device: str = "auto"  # auto, cpu, cuda, cuda:1, ...
    store: str = "runs"  # folder of the card store
    data: str = ""  # folder of the data sets; empty: $WEIGHTAUG_DATA, else ./data
    cache: str = (
        ""  # folder of what is made from data, such as decoded images; empty: .cache in that of the data
    )
    download: bool = False  # whether a missing data set may be downloaded
    wandb: str = "offline"
    launcher: Component = field(default_factory=lambda: Component("local", LOCAL, {}, {}))
    workers: int = (
        0  # worker processes, each with ``devices`` of them; 0: as many as the launcher has room for
    )
    devices: int = 1  # how many devices train a cell together, with a process for each
    accumulate: int = 1  # in how many parts, one after another, a device runs its part of every batch
    threads: int = 0  # CPU threads of a worker; 0: the cores divided among the workers
    engine: str = "auto"  # how training steps are run: auto, eager, compiled or graph
    checkpoint_seconds: float = 60.0
    retries: int = 2  # how often a cell that has failed is tried again before it is given up
    lease_seconds: float = 60.0  # a worker that gives no sign of life for so long loses its cell to another
    mixed_versions: str = "refuse"  # what if other code is filling the same store: refuse or allow
    weights: str = "keep"  # whether the store keeps the trained weights: keep or drop

    def __post_init__(self) -> None:
        if self.wandb not in WANDB_MODES:
            raise unknown_name("value of wandb", self.wandb, WANDB_MODES)
        if self.weights not in WEIGHTS:
            raise unknown_name("value of weights", self.weights, WEIGHTS)
        if self.mixed_versions not in MIXED_VERSIONS:
            raise unknown_name("value of mixed_versions", self.mixed_versions, MIXED_VERSIONS)
        if self.retries < 0:
            raise UserError("retries must not be negative (0: each cell is tried once)")
        if not self.lease_seconds >= LEAST_LEASE:
            raise UserError(f"lease_seconds must be {LEAST_LEASE:.0f} or more, for slow servers")
        if self.engine not in ENGINES:
            raise unknown_name("value of engine", self.engine, ENGINES)
        if self.device.partition(":")[0] not in DEVICES:
            raise unknown_name("device", self.device, DEVICES)
        if self.devices < 1 or self.accumulate < 1:
            raise UserError(f"devices={self.devices} accumulate={self.accumulate}: both must be at least 1")
        if (started := torchrun_processes()) > 1 and self.devices not in (1, started):
            raise UserError(
                f"devices={self.devices}, but torchrun has started {started} processes; leave out devices"
            )
        if self.workers < 0 or self.threads < 0:
            raise UserError("workers and threads must not be negative (0 chooses for you)")

    @property
    def store_folder(self) -> Path:
        return Path(self.store)

    @property
    def data_folder(self) -> Path:
        return Path(self.data or os.environ.get(DATA_VARIABLE) or "data")

    @property
    def cache_folder(self) -> Path:
        return Path(self.cache) if self.cache else self.data_folder / ".cache"

    def resolve_device(self) -> str:
        """The device's name for torch; an error that says so where it does not exist."""
        import torch

        available = torch.cuda.is_available()
        if self.device == "auto" and not available:
            return "cpu"
        if self.device == "auto":
            self._check_devices(0)
            return "cuda"
        kind, _, index = self.device.partition(":")
        if kind == "cuda":
            if not available:
                raise UserError(
                    f"device={self.device}: no CUDA device on this machine; use device=cpu (DEVICE=cpu)"
                )
            if index and (not index.isdigit() or int(index) >= torch.cuda.device_count()):
                raise UserError(
                    f"device={self.device}: this machine has cuda:0 to cuda:{torch.cuda.device_count() - 1}"
                )
            self._check_devices(int(index or 0))
        return self.device

    def _check_devices(self, first: int) -> None:
        """Whether there are GPUs from ``first`` on for all processes of all workers that were asked for."""
        here = self._gpus(first)
        if torchrun_processes() > 1:
            if (started := int(os.environ.get("LOCAL_WORLD_SIZE", 1))) > here:
                raise UserError(
                    f"torchrun has started {started} processes on this machine, and there are {here} GPUs for them; "
                    f"use --nproc-per-node={here}"
                )
            return
        needed = self.devices * max(1, self.workers)
        if self.devices > 1 and needed > here:
            asked = f"devices={self.devices}" + (f" workers={self.workers}" if self.workers > 1 else "")
            raise UserError(f"{asked} takes {needed} GPUs, and there are {here}; use fewer, or torchrun")

    def worker_count(self, device: str) -> int:
        """How many workers there are on this machine; ``cuda`` is all its GPUs, ``cuda:1`` the first of one worker."""
        if self.workers or not device.startswith("cuda"):
            return self.workers or max(1, cores() // self.devices)
        return max(1, self._gpus(0) // self.devices) if device == "cuda" else 1

    def _gpus(self, first: int) -> int:
        import torch

        return torch.cuda.device_count() - first

    def thread_count(self, device: str) -> int:
        return self.threads or max(1, cores() // self.worker_count(device))


def cores() -> int:
    """How many CPU cores this process may use; the processes that train a cell together share them."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, here // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def torchrun_processes() -> int:
    """How many processes torchrun has started together with this one; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1
