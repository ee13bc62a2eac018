"""The made-up images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.config import load
from benchmarks.data.synthetic import Synthetic
from benchmarks.errors import UserError


def test_sizes_classes_and_the_same_images_every_time() -> None:
    source = Synthetic(size=12, channels=2, classes=3, train_images=7, test_images=5)
    data = source.load(Path())
    assert data.train.images.shape == (7, 2, 12, 12) and data.train.images.dtype == torch.uint8  # type: ignore[attr-defined]
    assert data.train.labels.tolist() == [0, 1, 2, 0, 1, 2, 0] and len(data.test) == 5
    again = Synthetic(size=12, channels=2, classes=3, train_images=7, test_images=5).load(Path())
    assert torch.equal(data.train.images, again.train.images)  # type: ignore[attr-defined]
    assert not torch.equal(data.train.images[:5], data.test.images)  # type: ignore[attr-defined]


def test_classes_can_be_told_apart() -> None:
    data = Synthetic(train_images=400, test_images=200).load(Path())
    train, test = data.normalise(data.train.images).flatten(1), data.normalise(data.test.images).flatten(1)  # type: ignore[attr-defined]
    means = torch.stack([train[data.train.labels == label].mean(0) for label in range(10)])
    assert (torch.cdist(test, means).argmin(1) == data.test.labels).float().mean() > 0.95


@pytest.mark.parametrize("wrong", ["size=0", "channels=0", "classes=1", "train_images=0", "test_images=-1"])
def test_wrong_sizes_are_named(wrong: str) -> None:
    cell, _ = load(["dataset=synthetic", f"dataset.{wrong}"])
    with pytest.raises(UserError, match=f"dataset.{wrong}: must be at least"):
        cell.dataset.build()
