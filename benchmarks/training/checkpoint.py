"""Checkpoints: everything needed to continue a cell exactly, written whole or not at all.

Order, augmentation and noise are functions of the seed and the step, so a checkpoint holds no generator state.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from benchmarks.errors import one_line
from benchmarks.results.files import atomic, set_aside

VERSION = 1


def save(path: Path, cell_id: str, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, lists and dicts) for the cell ``cell_id`` by atomic rename."""
    with atomic(path) as partial:
        torch.save({"version": VERSION, "cell": cell_id, **state}, partial)


def load(path: Path, cell_id: str, device: str) -> dict[str, Any] | None:
    """The saved state; None where there is none. One that can't be used is set aside with a warning."""
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if state["version"] != VERSION or state["cell"] != cell_id:
            raise ValueError(f"it is of cell {state['cell']}, version {state['version']}")
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        set_aside(path, f"checkpoint can't be used ({one_line(error)}); its cell starts anew")
        return None
    return state
