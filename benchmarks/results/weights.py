"""A trained cell's weights: one safetensors file that says what it holds.

Tensors: the model's parameters and buffers under their own names, in the precision that training kept them in, and
the tensors of the method's state (such as WAS's K) under ``method:``. Metadata, all strings:

    cell, model         id and model of the cell
    protocol_version    of the program that trained it, see :mod:`benchmarks.cell`
    inputs              JSON {"classes", "channels", "size", "mean", "std"}: the model takes (pixels / 255 - mean) / std
    method              JSON: the method's state, {"tensor": NAME} in place of each tensor
    sha256              of all the above; two runs that end with the same bits have the same
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.cell import PROTOCOL_VERSION, Cell
from benchmarks.errors import UserError, one_line
from benchmarks.results.files import atomic

METHOD = "method:"
REFERENCE = "tensor"
NAMED = 3
"""How many of the tensors that do not fit an error names."""


@dataclass(frozen=True)
class Weights:
    """What a file of weights holds: the model's tensors, the method's state, and the metadata."""

    path: Path
    model: dict[str, Tensor]
    method: Any
    metadata: dict[str, str]

    @property
    def sha256(self) -> str:
        return self.metadata["sha256"]

    @property
    def inputs(self) -> dict[str, Any]:
        """Classes, channels and size of the images, and the mean and standard deviation taken out of them."""
        return dict(json.loads(self.metadata["inputs"]))


def save(
    path: Path,
    folder: Path,
    cell: Cell,
    inputs: Mapping[str, Any],
    model: nn.Module,
    state: Mapping[str, Any],
    ready: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Write the weights of a trained cell by atomic rename; returns the entry ``weights`` of its card.

    Args:
        folder: where the file lies until it is whole.
        inputs: what the model takes, as in the metadata.
        state: the method's state after training.
        ready: called just before the file appears; may raise.

    Raises:
        UserError: the method's state holds more than tensors, numbers, strings, lists and dicts.
    """
    tensors = dict(model.state_dict())
    own: dict[str, Tensor] = {}
    try:
        method = json.dumps(_take_tensors(state, "", own), sort_keys=True)
    except TypeError as error:
        raise UserError(
            f"the state of method {cell.method.name} can't be kept with the weights ({one_line(error)}); it may hold "
            "tensors, numbers, strings, lists and dicts; weights=drop runs the cell without keeping them"
        ) from error
    tensors |= {f"{METHOD}{name}": tensor for name, tensor in own.items()}
    # A copy of each: safetensors takes no tensors that share memory, as tied weights do.
    tensors = {
        name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()
    }
    metadata = {
        "cell": cell.id,
        "model": cell.model.title,
        "protocol_version": str(PROTOCOL_VERSION),
        "inputs": json.dumps(inputs),
        "method": method,
    }
    metadata["sha256"] = _digest(tensors, metadata)
    with atomic(path, folder, ready) as partial:
        try:
            save_file(tensors, partial, metadata)
        except SafetensorError as error:  # its word for a full disk
            raise OSError(one_line(error)) from error
        size_in_bytes = partial.stat().st_size
    return {"sha256": metadata["sha256"], "bytes": size_in_bytes}


def read(path: Path) -> Weights:
    """The weights in a file that :func:`save` wrote, checked against their own hash.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if metadata.get("sha256") != _digest(tensors, metadata):
            raise ValueError("its content does not have the hash that it states")
        own = {n.removeprefix(METHOD): t for n, t in tensors.items() if n.startswith(METHOD)}
        method = _put_tensors(json.loads(metadata["method"]), own)
    except FileNotFoundError:
        raise UserError(f"there are no weights in {path}") from None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"the weights in {path} are damaged ({one_line(error)}) and were left as they are; put a copy in their "
            "place, or move them and the cell's card away and run the cell again"
        ) from error
    model = {name: tensor for name, tensor in tensors.items() if not name.startswith(METHOD)}
    return Weights(path, model, method, metadata)


def load_weights(model: nn.Module, weights: Path | Weights) -> None:
    """Load the model's tensors of a file that :func:`save` wrote into ``model``.

    Raises:
        UserError: there is no such file, it is damaged, or it is of another model; nothing is loaded then.
    """
    weights = weights if isinstance(weights, Weights) else read(weights)
    here = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    there = {name: tuple(tensor.shape) for name, tensor in weights.model.items()}
    if here != there:
        reason = _misfit(there, here, weights.metadata)
        raise UserError(f"the weights in {weights.path} don't fit the model: {reason}")
    model.load_state_dict(weights.model)


def _misfit(
    there: Mapping[str, tuple[int, ...]], here: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]
) -> str:
    """Where the file's shapes (``there``) and the model's (``here``) part, and what to do."""
    rebuild = f"build it with the settings of cell {metadata['cell']} (model={metadata['model']})"
    lacking, extra = sorted(here.keys() - there.keys()), sorted(there.keys() - here.keys())
    if lacking or extra:
        parts = [f"the file lacks {_some(lacking)}"] * bool(lacking)
        parts += [f"the model lacks {_some(extra)}"] * bool(extra)
        return f"{' and '.join(parts)}; {rebuild}"
    differing = {name: (there[name], here[name]) for name in here if there[name] != here[name]}
    counts = {(old[:1], new[:1]) if old[1:] == new[1:] else None for old, new in differing.values()}
    name, (old, new) = next(iter(differing.items()))
    if len(counts) == 1 and None not in counts:  # the last layer's weight and bias
        some = _some(list(differing))
        return f"they are for {old[0]} classes, it has {new[0]} ({some}); build it with num_classes={old[0]}"
    more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
    return f"{name} is {list(old)} in the file and {list(new)} in the model{more}; {rebuild}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    stated = {key: value for key, value in metadata.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _take_tensors(state: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """``state`` with ``{"tensor": NAME}`` in place of each tensor, which goes into ``tensors``."""
    if isinstance(state, Tensor):
        tensors[name] = state
        return {REFERENCE: name}
    start = f"{name}." if name else ""
    if isinstance(state, Mapping):
        return {key: _take_tensors(value, f"{start}{key}", tensors) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [_take_tensors(value, f"{start}{index}", tensors) for index, value in enumerate(state)]
    return state


def _put_tensors(state: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The reverse of :func:`_take_tensors`."""
    if isinstance(state, dict):
        if state.keys() == {REFERENCE}:
            return tensors[state[REFERENCE]]
        return {key: _put_tensors(value, tensors) for key, value in state.items()}
    return [_put_tensors(value, tensors) for value in state] if isinstance(state, list) else state
