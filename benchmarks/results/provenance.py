"""What made a card: code, packages, hardware, command."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = (
    "weightaug",
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-learn",
    "hydra-core",
    "fvcore",
    "wandb",
)
PATH_KEYS = ("store=", "data=")
PATH_OPTIONS = ("--reports", "--cards")
"""Settings and options that name folders of one machine; they change no number and stay out of the card."""


@cache
def commit() -> tuple[str | None, bool | None]:
    """The git commit of the code and whether its tree was changed; (None, None) outside a checkout."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return None, None
        # Generated reports are results, not code: making one must not mark the next card as dirty.
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", ".", ":!reports"))
    except (OSError, subprocess.SubprocessError):
        return None, None


@cache
def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def hardware(device: str) -> dict[str, Any]:
    import psutil
    import torch

    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.system(),
    }
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
        found["cuda"] = torch.version.cuda
    return found


def machine(provenance: Mapping[str, Any]) -> tuple[Any, ...]:
    """What must be the same for times to be comparable: the GPU's name, or the processor's and its cores; how many."""
    device, hardware = str(provenance["device"]), provenance["hardware"]
    several = (n,) if (n := provenance.get("devices", 1)) > 1 else ()
    if device.startswith("cuda"):
        return ("cuda", hardware.get("gpu"), *several)
    return (device, hardware.get("processor"), hardware.get("cores"), *several)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def command_line() -> str:
    """The command as a person would type it again, without the folders of this machine."""
    given = sys.argv[1:]
    kept = [
        argument
        for before, argument in zip(["", *given], given, strict=False)
        if not argument.startswith((*PATH_KEYS, *PATH_OPTIONS)) and before not in PATH_OPTIONS
    ]
    return shlex.join(["weightaug", *kept])


def provenance(device: str, threads: int, command: str, started: str, finished: str) -> dict[str, Any]:
    """The ``provenance`` of a card."""
    revision, dirty = commit()
    return {
        "commit": revision,
        "dirty": dirty,
        "versions": versions(),
        "hardware": hardware(device),
        "device": device,
        "threads": threads,
        "command": command,
        "started": started,
        "finished": finished,
    }
