"""SGD on corrupted inputs in the harness: what the model sees, and bad settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.config import load
from benchmarks.data.batches import epoch_batches
from benchmarks.data.corruptions import corrupt, read_table
from benchmarks.data.dataset import DataSet, Images
from benchmarks.data.digits import Digits
from benchmarks.errors import UserError
from benchmarks.training.corrupted_inputs import corrupted_sgd
from benchmarks.training.trainer import build

OVERRIDES = ["method=corrupted_sgd", "method.corruption=gaussian_noise"]


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return Digits().load(Path())


def test_pixels_are_the_exact_inverse_of_normalise(digits: DataSet) -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16)
    cifar = DataSet(digits.train, digits.test, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    assert torch.equal(cifar.pixels(cifar.normalise(images)), images)
    assert torch.equal(digits.pixels(digits.normalise(digits.train.images)), digits.train.images)


@pytest.mark.parametrize("corruption", [*read_table("digits"), "pixelate"])
def test_a_random_half_is_corrupted_as_the_test_images_are(digits: DataSet, corruption: str) -> None:
    cell = load([*OVERRIDES[:1], f"method.corruption={corruption}", "method.severity=4"])[0]
    if corruption == "pixelate":  # the only one that the digits lack
        cell.dataset.arguments["corruptions"]["pixelate"] = [0.9, 0.8, 0.7, 0.6, 0.5]
    source = cell.dataset.build()
    method = build(cell, source, "cpu", digits)[1]
    x, _ = next(epoch_batches(digits, cell.recipe, 0, 0))
    seen = method.corrupt(x)
    chosen = (seen != x).flatten(1).any(dim=1)
    assert 24 <= int(chosen.sum()) <= 32
    assert torch.equal(seen, method.corrupt(x))
    order = torch.randperm(64, generator=method.random.generator("cpu", 0, "examples"))[:32]
    assert set(chosen.nonzero().flatten().tolist()) <= set(order.tolist())
    seed = method.random.generator("cpu", 0, "corruption").initial_seed()
    expected = corrupt(digits.pixels(x)[order], corruption, 4, source.corruptions, seed=seed)
    assert torch.equal(digits.pixels(seen)[order], expected)
    method.step += 1
    assert not torch.equal(seen, method.corrupt(x))


def test_severity_and_corruption_are_checked_before_anything_runs(digits: DataSet) -> None:
    for setting, message in (
        ("method.severity=6", "severity is 6; it is a whole number from 1 to 5"),
        ("method.fraction=1.5", "fraction is 1.5"),
        ("method.corruption=gausian_noise", "gaussian_noise"),
        ("method.corruption=fog", "unknown corruption of the data set"),
    ):
        cell = load([*OVERRIDES, setting])[0]
        with pytest.raises(UserError, match=message):
            build(cell, cell.dataset.build(), "cpu")


def test_without_data_it_can_be_built_but_not_run() -> None:
    source = load(OVERRIDES)[0].dataset.build()
    method = corrupted_sgd(nn.Flatten(), source=source)
    with pytest.raises(ValueError, match="give data"):
        method.corrupt(torch.zeros(4, 1, 8, 8))


def test_fraction_zero_is_sgd(digits: DataSet) -> None:
    small = Images(digits.train.images[:64], digits.train.labels[:64])
    data = DataSet(small, small, digits.mean, digits.std)
    gradients = []
    for settings in (["method=sgd"], [*OVERRIDES, "method.fraction=0.0"]):
        cell = load(settings)[0]
        model, method = build(cell, cell.dataset.build(), "cpu", data)
        method.backward(nn.functional.cross_entropy, *next(epoch_batches(data, cell.recipe, 0, 0)))
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
