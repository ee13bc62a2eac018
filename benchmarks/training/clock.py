"""Where the time of a run goes, and the energy: one clock whose parts exclude each other."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch


class Clock:
    """Adds up the wall-clock seconds, and the joules where the device counts them, of each part of a run.

    A part inside another is not counted in the outer one::

        with clock("training"):
            ...
            with clock("checkpoint"):
                ...

    The device is waited for whenever the part changes, so that its work counts where it was asked for.

    Args:
        device: torch's name of it.
        seconds: by part, added to in place.
        joules: likewise; stays empty where the device has no energy counter. It counts the whole device, that is
            also what other processes do there meanwhile.
    """

    def __init__(self, device: str, seconds: dict[str, float], joules: dict[str, float]) -> None:
        self.seconds, self.joules = seconds, joules
        self._device = torch.device(device)
        self._energy = energy_counter(device)
        self._parts: list[str] = []
        self._since = self._read()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        self._add()
        self._parts.append(part)
        try:
            yield
        finally:
            self._add()
            self._parts.pop()

    def _add(self) -> None:
        """Count what has gone since the last change in the part that it belongs to."""
        before, self._since = self._since, self._read()
        if not self._parts:
            return
        part = self._parts[-1]
        self.seconds[part] = self.seconds.get(part, 0.0) + self._since[0] - before[0]
        if self._energy is not None:
            self.joules[part] = self.joules.get(part, 0.0) + self._since[1] - before[1]

    def _read(self) -> tuple[float, float]:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter(), self._energy() if self._energy is not None else 0.0


@cache
def energy_counter(device: str) -> Callable[[], float] | None:
    """Reads the joules that a GPU has used since its driver was loaded (NVML); None where nothing counts them."""
    if not device.startswith("cuda"):
        return None
    try:
        pynvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(name)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except (AttributeError, pynvml.NVMLError):  # an old torch or card, or a part of one
        return None

    def joules() -> float:
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000  # counted in millijoules

    return joules
