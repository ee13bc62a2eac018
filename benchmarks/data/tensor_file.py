"""Images and labels from one file of tensors, checked so thoroughly that training can trust them."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.errors import UserError, one_line

WHOLE = ("images", "labels")
SPLIT = ("train_images", "train_labels", "test_images", "test_labels")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors ``images`` and ``labels`` of a file, or these two with ``train_`` and with ``test_`` before them.

    Images come as uint8 [N, C, H, W]: they may be stored with the channels last or, if grey, without; 8-bit, or as
    floats from 0 to 1, which are rounded to 8 bits. Labels come as int64 [N]. A .pt file is opened with
    ``weights_only``, a .npz without pickles: neither can run code.

    Raises:
        UserError: a file that can't be read, tensors that are missing or that can't be images and their labels.
    """
    stored = _stored(path)
    names = SPLIT if SPLIT[0] in stored else WHOLE
    absent = [name for name in names if name not in stored]
    if absent:
        raise UserError(
            f"{path} has no {', '.join(absent)}; it needs {' and '.join(WHOLE)}, or {', '.join(SPLIT)} "
            f"(it has {', '.join(sorted(map(str, stored))) or 'nothing'})"
        )
    tensors: dict[str, Tensor] = {}
    for name in names:
        try:
            value = torch.as_tensor(stored[name])
        except (TypeError, ValueError, RuntimeError):
            raise UserError(f"{path}: {name} is no tensor but {type(stored[name]).__name__}") from None
        if value.layout != torch.strided:
            raise UserError(f"{path}: {name} is sparse; store it as a dense tensor")
        convert = _images if name.endswith("images") else _labels
        tensors[name] = convert(value, f"{path}: {name}")
    memory = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    if len(memory) < len(
        tensors
    ):  # a .pt file keeps views of one tensor as such, which can't be kept as they are
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    for images, labels in zip(names[::2], names[1::2], strict=True):
        if len(tensors[images]) != len(tensors[labels]) or not len(tensors[labels]):
            raise UserError(
                f"{path}: {len(tensors[images])} {images} and {len(tensors[labels])} {labels}; as many are needed"
            )
    return tensors


def _stored(path: Path) -> dict[str, Any]:
    """What the file holds, by name."""
    readers = {".npz": _npz, ".safetensors": _safetensors, ".pt": _pt, ".pth": _pt}
    if path.suffix not in readers:
        raise UserError(f"{path}: only {', '.join(readers)} files can be read")
    try:
        stored = readers[path.suffix](path)
    except (
        OSError,
        ValueError,
        EOFError,
        RuntimeError,
        KeyError,
        zipfile.BadZipFile,
        pickle.UnpicklingError,
    ) as error:
        raise UserError(
            f"{path} can't be read, it is damaged or of another kind: {one_line(error)}"
        ) from None
    if not isinstance(stored, dict):
        raise UserError(f"{path} must hold named tensors, not {type(stored).__name__}")
    return stored


def _npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(str(error)) from None


def _pt(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _images(images: Tensor, where: str) -> Tensor:
    """uint8 [N, C, H, W] of whatever can be understood as that."""
    if images.dim() == 3:
        images = images.unsqueeze(1)
    if images.dim() != 4:
        raise UserError(f"{where}: images have 3 axes (grey) or 4, not {images.dim()}")
    if images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2)
    if images.shape[1] not in (1, 3) or images.shape[2] != images.shape[3]:
        raise UserError(
            f"{where} of the shape {list(images.shape)}: square images with 1 or 3 channels are needed, [N, C, H, W] "
            "or [N, H, W, C]"
        )
    if images.is_floating_point():
        if not images.isfinite().all():
            bad = int((~images.isfinite()).flatten(1).any(1).sum())
            raise UserError(f"{where}: {bad} of {len(images)} have values that are NaN or infinite")
        if len(images) and (images.min() < 0 or images.max() > 1):
            raise UserError(
                f"{where}: floats must be from 0 to 1, they are from {float(images.min()):g} to {float(images.max()):g}"
            )
        images = (images * 255).round().to(torch.uint8)
    if images.dtype != torch.uint8:
        raise UserError(
            f"{where}: 8-bit whole numbers (uint8) or floats from 0 to 1 are needed, not {images.dtype}"
        )
    return images.contiguous()


def _labels(labels: Tensor, where: str) -> Tensor:
    if labels.dim() != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UserError(f"{where}: whole numbers [N] are needed, not {labels.dtype} {list(labels.shape)}")
    labels = labels.long()
    if len(labels) and labels.min() < 0:
        raise UserError(f"{where}: labels out of range: {int(labels.min())} is below 0")
    return labels
