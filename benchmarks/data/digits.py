"""The embedded data set: scikit-learn's handwritten digits, 1,797 real grey images of 8 x 8 pixels, 10 classes.

They ship in scikit-learn's wheel, so this needs no download. Source: E. Alpaydin and C. Kaynak, Optical Recognition
of Handwritten Digits, UCI Machine Learning Repository (the test half of it).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.data.corruptions import check_severities
from benchmarks.data.dataset import DataSet, Images, Source

TEST_IMAGES = 540  # 30 % of 1,797; the other 1,257 are for training


class Digits(Source):
    """Handwritten digits with a fixed stratified split, the same for every seed of a run."""

    num_classes = 10
    in_channels = 1
    image_size = 8

    def __init__(self, *, corruptions: dict[str, list[Any]] | None = None) -> None:
        self.corruptions = check_severities(corruptions or {})

    def load(self, root: Path, download: bool = False) -> DataSet:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        train, test = train_test_split(
            range(len(digits.target)), test_size=TEST_IMAGES, stratify=digits.target, random_state=0
        )
        pixels = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
        labels = torch.from_numpy(digits.target).long()
        scaled = pixels[train].float() / 255
        return DataSet(
            train=Images(pixels[train], labels[train]),
            test=Images(pixels[test], labels[test]),
            mean=(float(scaled.mean()),),
            std=(float(scaled.std()),),
        )
