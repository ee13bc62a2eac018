"""CIFAR-10 and CIFAR-100 in the python version, with the DAMP authors' normalisation constants."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from benchmarks.data.dataset import DataSet, Images, Source
from benchmarks.data.files.checks import read_checked
from benchmarks.data.files.declared import file_set


class CIFAR10(Source):
    """50,000 training and 10,000 test images of 32 x 32 pixels in 10 classes."""

    files: ClassVar[str] = "cifar10"
    published_sets: ClassVar[tuple[str, ...]] = ("cifar10_c", "cifar10_c_bar")
    label_key: ClassVar[str] = "labels"
    own_mean: ClassVar[tuple[float, ...]] = (0.4914, 0.4822, 0.4465)
    own_std: ClassVar[tuple[float, ...]] = (0.2470, 0.2435, 0.2616)

    counts = (50_000, 10_000)
    num_classes = 10
    in_channels = 3
    image_size = 32

    def read(self, root: Path) -> DataSet:
        parts = file_set(self.files).downloads[0].parts
        train = [self._batch(root, part, md5) for part, md5 in parts.items() if _stem(part) in TRAINING]
        test = [self._batch(root, part, md5) for part, md5 in parts.items() if _stem(part) in TEST]
        return DataSet(_joined(train), _joined(test), self.own_mean, self.own_std)

    def _batch(self, root: Path, part: str, md5: Any) -> Images:
        """One file of the set: a pickle, opened only once its MD5 has matched."""
        content = pickle.loads(read_checked(root / part, ("md5", str(md5)), self.files), encoding="latin1")
        pixels = np.asarray(content["data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
        return Images(torch.from_numpy(pixels), torch.tensor(content[self.label_key]))


class CIFAR100(CIFAR10):
    """50,000 training and 10,000 test images of 32 x 32 pixels in 100 classes (the fine labels)."""

    files: ClassVar[str] = "cifar100"
    published_sets: ClassVar[tuple[str, ...]] = ("cifar100_c",)
    label_key: ClassVar[str] = "fine_labels"
    own_mean: ClassVar[tuple[float, ...]] = (0.5071, 0.4865, 0.4409)
    own_std: ClassVar[tuple[float, ...]] = (0.2673, 0.2564, 0.2762)

    num_classes = 100


TRAINING = {*(f"data_batch_{number}" for number in range(1, 6)), "train"}
TEST = {"test_batch", "test"}


def _stem(part: str) -> str:
    return part.rpartition("/")[2]


def _joined(batches: list[Images]) -> Images:
    return Images(torch.cat([b.images for b in batches]), torch.cat([b.labels for b in batches]))
