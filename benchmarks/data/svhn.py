"""SVHN, cropped digits: 73,257 training and 26,032 test images of 32 x 32 colour pixels in 10 classes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import ClassVar

import torch

from benchmarks.data.dataset import DataSet, Images, Source
from benchmarks.data.files.checks import read_checked
from benchmarks.data.files.declared import file_set
from benchmarks.data.statistics import channel_statistics


class SVHN(Source):
    """The published .mat files without the ``extra`` images; the digit 0, there labelled 10, has the label 0 here."""

    files: ClassVar[str] = "svhn"

    counts = (73_257, 26_032)
    num_classes = 10
    in_channels = 3
    image_size = 32

    def read(self, root: Path) -> DataSet:
        from scipy.io import loadmat

        parts = []
        for item in file_set(self.files).downloads:
            content = loadmat(io.BytesIO(read_checked(root / item.file, item.checksum, self.files)))
            pixels = torch.from_numpy(content["X"]).permute(3, 2, 0, 1).contiguous()
            parts.append(Images(pixels, torch.from_numpy(content["y"]).flatten().long() % 10))
        train, test = parts
        return DataSet(train, test, *channel_statistics(train.images))
