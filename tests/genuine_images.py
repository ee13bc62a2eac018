"""Genuine CIFAR-10 test images for tests and measurements, where they are at hand."""

from __future__ import annotations

import os
import pickle
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
PACKED = Path(os.environ.get("WEIGHTAUG_CIFAR10", ROOT.parent / "shared" / "data"))
"""The folder with the lossless form, whose test images are a mosaic of 100 x 100."""
ABSENT = (
    "no genuine CIFAR-10 here: WEIGHTAUG_DATA may name the folder of cifar-10-batches-py, "
    "WEIGHTAUG_CIFAR10 that of its lossless form"
)


@cache
def cifar10_test_images() -> Tensor | None:
    """uint8 [10000, 3, 32, 32], or None."""
    batch = Path(os.environ.get("WEIGHTAUG_DATA", "")) / "cifar-10-batches-py" / "test_batch"
    mosaic = PACKED / "cifar-10" / "test_batch.webp"
    if batch.is_file():
        with batch.open("rb") as file:
            return torch.from_numpy(pickle.load(file, encoding="bytes")[b"data"]).view(-1, 3, 32, 32)
    if mosaic.is_file():
        pixels = np.asarray(Image.open(mosaic).convert("RGB")).reshape(100, 32, 100, 32, 3)
        return torch.from_numpy(pixels.transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32).copy())
    return None
