"""The embedded data set: scikit-learn's handwritten digits, 1,797 real grey images of 8 x 8 pixels, 10 classes.

They ship in scikit-learn's wheel, so this needs no download. Source: E. Alpaydin and C. Kaynak, Optical Recognition
of Handwritten Digits, UCI Machine Learning Repository (the test half of it).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch

from benchmarks.data.dataset import DataSet, Images, Source
from benchmarks.errors import UserError

TEST_IMAGES = 540  # 30 % of 1,797; the other 1,257 are for training


class Digits(Source):
    """Handwritten digits with a fixed stratified split, the same for every seed of a run."""

    counts = (1_257, 540)
    num_classes = 10
    in_channels = 1
    image_size = 8

    def read(self, root: Path) -> DataSet:
        values, classes = digits()
        train, test = split(classes)
        pixels = torch.from_numpy(values).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
        labels = torch.from_numpy(classes)
        scaled = (
            pixels[train].double() / 255
        )  # so that the order of the sum, and so the threads, change nothing
        return DataSet(
            train=Images(pixels[train], labels[train]),
            test=Images(pixels[test], labels[test]),
            mean=(float(scaled.mean()),),
            std=(float(scaled.std()),),
        )


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The images [N, 8, 8] with values from 0 to 16 and their classes, without scikit-learn's long import."""
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise UserError("the digits come with scikit-learn, which is not installed: pip install scikit-learn")
    table = np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)


def split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the training and of the test images: scikit-learn's stratified split with random_state 0."""
    draw = np.random.RandomState(0)
    counts = np.bincount(labels)
    train_counts = _shares(counts, len(labels) - TEST_IMAGES, draw)
    test_counts = _shares(counts - train_counts, TEST_IMAGES, draw)
    train, test = [], []
    for number, count in enumerate(counts):
        places = np.flatnonzero(labels == number)[draw.permutation(count)]
        train.append(places[: train_counts[number]])
        test.append(places[train_counts[number] :][: test_counts[number]])
    return draw.permutation(np.concatenate(train)), draw.permutation(np.concatenate(test))


def _shares(counts: np.ndarray, total: int, draw: np.random.RandomState) -> np.ndarray:
    """``total`` in the proportions of ``counts``: rounded down, then one more where the most was cut off."""
    exact = counts / counts.sum() * total
    shares = np.floor(exact)
    missing = int(total - shares.sum())
    cut = exact - shares
    for value in np.unique(cut)[::-1]:
        if missing == 0:
            break
        alike = np.flatnonzero(cut == value)
        chosen = draw.choice(alike, size=min(len(alike), missing), replace=False)
        shares[chosen] += 1
        missing -= len(chosen)
    return shares.astype(np.int64)
