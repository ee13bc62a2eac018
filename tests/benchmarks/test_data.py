"""Data sets and batches."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from benchmarks.cell import Recipe
from benchmarks.data.augmentation import crop
from benchmarks.data.batches import epoch_batches, steps_per_epoch
from benchmarks.data.dataset import DataSet, Images
from benchmarks.data.digits import Digits


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return Digits().load(Path())


def test_digits_split_is_fixed_and_stratified(digits: DataSet) -> None:
    assert (len(digits.train), len(digits.test)) == (1257, 540)
    assert digits.train.images.shape == (1257, 1, 8, 8)
    assert digits.train.images.dtype == torch.uint8
    assert digits.train.images.max() == 255
    shares = digits.test.labels.bincount() / 540 - digits.train.labels.bincount() / 1257
    assert shares.abs().max() < 0.002
    text = digits.test.images.numpy().tobytes() + digits.test.labels.numpy().tobytes()
    assert hashlib.sha256(text).hexdigest()[:16] == "815558a276c0e1d6"


def test_batches_are_a_function_of_seed_and_epoch(digits: DataSet) -> None:
    recipe = Recipe(batch_size=64, crop_padding=1, flip=True)

    def epoch(seed: int, number: int) -> torch.Tensor:
        return torch.cat([x for x, _ in epoch_batches(digits, recipe, seed, number)])

    assert torch.equal(epoch(0, 3), epoch(0, 3))
    assert not torch.equal(epoch(0, 3), epoch(0, 4))
    assert not torch.equal(epoch(0, 3), epoch(1, 3))


@pytest.mark.parametrize(("drop_last", "expected"), [(True, 19), (False, 20)])
def test_last_batch_is_dropped_or_kept(digits: DataSet, drop_last: bool, expected: int) -> None:
    recipe = Recipe(batch_size=64, drop_last=drop_last)
    batches = list(epoch_batches(digits, recipe, 0, 0))
    assert len(batches) == steps_per_epoch(1257, recipe) == expected
    assert sum(len(y) for _, y in batches) == (1216 if drop_last else 1257)


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    assert steps_per_epoch(10, Recipe(batch_size=64, drop_last=True)) == 1


def test_crop_moves_images_and_pads_with_zeros() -> None:
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    middle = crop(image, 1, torch.tensor([[1, 1]]))
    corner = crop(image, 1, torch.tensor([[0, 2]]))
    assert torch.equal(middle, image)
    assert corner.view(3, 3).tolist() == [[0, 0, 0], [2, 3, 0], [5, 6, 0]]


def test_labels_follow_their_images(digits: DataSet) -> None:
    recipe = Recipe(batch_size=100)
    known = {
        bytes(i.numpy().tobytes()): int(y)
        for i, y in zip(digits.train.images, digits.train.labels, strict=True)
    }
    mean, std = digits.mean[0], digits.std[0]
    for x, y in epoch_batches(digits, recipe, 0, 0):
        pixels = ((x * std + mean) * 255).round().to(torch.uint8)
        assert all(
            known[bytes(i.numpy().tobytes())] == int(label) for i, label in zip(pixels, y, strict=True)
        )


def test_normalisation_is_per_channel() -> None:
    none = Images(torch.zeros(0), torch.zeros(0))
    data = DataSet(none, none, (0.5, 0.2), (0.5, 0.1))
    x = data.normalise(torch.tensor([255, 51], dtype=torch.uint8).view(1, 2, 1, 1))
    assert torch.allclose(x.flatten(), torch.tensor([1.0, 0.0]), atol=1e-6)
