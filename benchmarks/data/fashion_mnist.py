"""Fashion-MNIST: 60,000 training and 10,000 test images of 28 x 28 grey pixels in 10 classes."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from benchmarks.data.dataset import DataSet, Images, Source
from benchmarks.data.files.checks import read_checked
from benchmarks.data.files.declared import file_set
from benchmarks.data.statistics import channel_statistics
from benchmarks.errors import UserError


class FashionMNIST(Source):
    """Read from the four published .gz files, in the folder that torchvision keeps them in too."""

    files: ClassVar[str] = "fashion_mnist"

    counts = (60_000, 10_000)
    num_classes = 10
    in_channels = 1
    image_size = 28

    def read(self, root: Path) -> DataSet:
        arrays = {}
        for item in file_set(self.files).downloads:
            path = root / item.file
            arrays[path.name.split("-idx")[0]] = _idx(path, read_checked(path, item.checksum, self.files))
        train, test = (
            Images(arrays[f"{part}-images"].unsqueeze(1), arrays[f"{part}-labels"].long())
            for part in ("train", "t10k")
        )
        return DataSet(train, test, *channel_statistics(train.images))


def _idx(path: Path, packed: bytes) -> torch.Tensor:
    """An array in the MNIST format: two zero bytes, type (8 = uint8), number of axes, their lengths, the values."""
    try:
        content = gzip.decompress(packed)
        axes = content[3]
        shape = np.frombuffer(content, ">i4", count=axes, offset=4)
        if content[:3] != b"\0\0\x08":
            raise ValueError
        return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape).copy())
    except (OSError, EOFError, ValueError, IndexError):
        raise UserError(f"{path} is not an array in the MNIST format; delete it and fetch it again") from None
