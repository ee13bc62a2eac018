"""The golden vectors: the whole set beside the repository if it is there, else that in tests/goldens.

The selection has the same names of files and arrays but fewer cases; every test runs on what its file holds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightaug.kernel_draws import Crop, Draw, Shift

ROOT = Path(__file__).resolve().parent.parent
WHOLE = Path(os.environ.get("WEIGHTAUG_GOLDENS", ROOT.parent / "shared" / "goldens"))
SELECTION = ROOT / "tests" / "goldens"


def golden_names(*names: str) -> list[str]:
    """Those of ``names`` that are at hand: all of them where the whole set is."""
    return [name for name in names if any((folder / f"{name}.npz").exists() for folder in (WHOLE, SELECTION))]


def load_golden(name: str) -> tuple[Mapping[str, np.ndarray], dict[str, Any]]:
    """The arrays and the description of one golden file."""
    folder = WHOLE if (WHOLE / f"{name}.npz").exists() else SELECTION
    return np.load(folder / f"{name}.npz"), json.loads((folder / f"{name}.json").read_text())


def tensor(array: np.ndarray) -> Tensor:
    """In float64 where it is a number with a fraction."""
    result = torch.from_numpy(np.asarray(array))
    return result.double() if result.is_floating_point() else result


def draw_of(row: np.ndarray) -> Draw:
    """(1, dx, dy, 0, 0) or (2, top, left, height, width)."""
    kind, *values = (int(value) for value in row)
    return Shift(values[0], values[1]) if kind == 1 else Crop(*values)


def deviation(actual: Tensor | np.ndarray, expected: np.ndarray, scale: float | None = None) -> float:
    """Largest difference relative to the largest expected entry, or to ``scale``."""
    actual = actual.detach().numpy() if isinstance(actual, Tensor) else actual
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / (scale or max(np.abs(expected).max(), 1e-300)))
