"""Checkpoints: everything needed to continue a cell exactly, written whole or not at all; the last two are kept.

Order, augmentation and noise are functions of the seed and the step, so a checkpoint holds no generator state. It is
a file of ``torch.save`` that is read as data alone (``weights_only``), with all tensors on the CPU: it says nothing of
the device that it was made on. For SGD with momentum it takes 8 bytes a parameter, for AdamW 12.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.cell import Cell
from benchmarks.errors import one_line
from benchmarks.results.files import atomic

VERSION = 2


class RefusedError(Exception):
    """Why a checkpoint can't be used."""


def previous(path: Path) -> Path:
    """Where the checkpoint before the one at ``path`` is kept."""
    return path.with_stem(f"{path.stem}.previous")


def save(path: Path, cell: Cell, state: Mapping[str, Any], ready: Callable[[], None] = lambda: None) -> None:
    """Write ``state`` (tensors, numbers, strings, lists and dicts); what was at ``path`` is the previous one then.

    At every moment there is a whole checkpoint in one of the two places, once there was one at all.

    Args:
        ready: called just before the file appears; may raise.
    """
    content = {"version": VERSION, "cell": cell.id, "config": cell.as_dict(), **state}
    new = _new(path)
    with atomic(new, ready=ready) as partial, partial.open("wb") as file:  # torch's own gives no OSError
        torch.save(_on_cpu(content), file)
    if path.exists():
        path.replace(previous(path))
    new.replace(path)
    _sync(path.parent)


def load(path: Path, cell: Cell) -> dict[str, Any]:
    """The state saved at ``path``, on the CPU, where AdamW's counts belong whatever the device.

    Raises:
        RefusedError: it is damaged, of another cell, or of another version of this layout.
    """
    for left in path.parent.glob(f".{_new(path).name}.partial-*"):  # of a process killed while it wrote
        left.unlink(missing_ok=True)
    try:
        with ZipFile(path) as file:  # torch reads its own archives without looking at their checksums
            if damaged := file.testzip():
                raise ValueError(f"{damaged} has changed since it was written")
        state = torch.load(path, map_location="cpu", weights_only=True)
        version, cell_id, config = state["version"], state["cell"], state["config"]
    except (
        OSError,
        BadZipFile,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        pickle.UnpicklingError,
    ) as error:
        raise RefusedError(f"it is damaged or no checkpoint: {one_line(error)}") from error
    if version != VERSION:
        raise RefusedError(f"it has layout version {version}, this program reads {VERSION}")
    if cell_id != cell.id:
        setting = cell.contradiction(config)
        raise RefusedError(f"it is of cell {cell_id}" + (f", with another {setting}" if setting else ""))
    return dict(state)


def load_model(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """``model.load_state_dict``, with a reason of one line.

    Raises:
        RefusedError: the state is of another model.
    """
    here = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    there = {name: list(tensor.shape) for name, tensor in state.items()}
    for name in here | there:
        if here.get(name) != there.get(name):
            sizes = f"{there.get(name, 'missing')} there and {here.get(name, 'missing')} here"
            raise RefusedError(f"it is of another model: {name} is {sizes}")
    model.load_state_dict(state)


def optimizer_state(optimizer: Optimizer) -> dict[int, Any]:
    """What the optimizer keeps of each parameter. Its options are the recipe's and the engine's, not the run's."""
    return dict(optimizer.state_dict()["state"])


def load_optimizer(optimizer: Optimizer, state: dict[int, Any]) -> None:
    """Put back what :func:`optimizer_state` gave, in the parameters' own memory layout.

    Raises:
        RefusedError: the state is of other parameters.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, of in state.items():
        shape = parameters[number].shape if number < len(parameters) else None
        if any(isinstance(value, Tensor) and value.ndim and value.shape != shape for value in of.values()):
            raise RefusedError(
                f"its optimizer is of other parameters: number {number} is not {shape and [*shape]}"
            )
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    for parameter, of in optimizer.state.items():
        for name, value in of.items():
            if isinstance(value, Tensor) and value.ndim and value.stride() != parameter.stride():
                of[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _new(path: Path) -> Path:
    return path.with_stem(f"{path.stem}.new")


def _on_cpu(state: Any) -> Any:
    """``state`` with every tensor on the CPU, without the rest of a larger tensor that it is a view of."""
    if isinstance(state, Tensor):
        tensor = state.detach().cpu()
        return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
    if isinstance(state, Mapping):
        return {key: _on_cpu(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_on_cpu(value) for value in state)
    return state


def _sync(folder: Path) -> None:
    """Make the renaming last, too, through a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
