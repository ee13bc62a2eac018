"""Known devices: what their makers' data sheets say. Bounds of a time, never a measurement."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks import registry
from benchmarks.errors import UserError
from benchmarks.typed import build, read_yaml


@dataclass(frozen=True)
class KnownDevice:
    """An entry of the config group ``device``."""

    gpu: str  # how torch calls it, or the start of that
    memory_gb: float  # 1e9 bytes
    peak_tflops: dict[str, float]  # by precision, dense matrix products
    bandwidth_gb: float  # 1e9 bytes a second
    source: str
    description: str = ""
    name: str = field(default="")

    def peak(self, precision: str) -> float | None:
        """The highest FLOP/s in ``precision``; None where the device does not have it."""
        rate = self.peak_tflops.get(precision)
        return None if rate is None else rate * 1e12

    @property
    def memory_bytes(self) -> float:
        return self.memory_gb * 1e9


def known_device(name: str) -> KnownDevice:
    """The device that is registered as ``name``, such as ``h100``."""
    found = build(KnownDevice, {**read_yaml(registry.lookup("device", name).path), "name": name}, name)
    if not found.peak_tflops or min(found.peak_tflops.values()) <= 0 or found.memory_gb <= 0:
        raise UserError(f"configs/device/{name}.yaml: peak_tflops and memory_gb must be above 0")
    return found


def device_called(gpu: str) -> KnownDevice | None:
    """The known device that torch calls ``gpu``; of several, the one with the longest name in common."""
    entries = [known_device(name) for name in registry.entries("device")]
    fitting = [device for device in entries if gpu.lower().startswith(device.gpu.lower())]
    return max(fitting, key=lambda device: len(device.gpu), default=None)
