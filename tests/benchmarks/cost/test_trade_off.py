"""Accuracy against FLOPs on a trained network, from the training images alone."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.cell import Cell
from benchmarks.config import load
from benchmarks.cost import trade_off as module
from benchmarks.cost.dom_savings import dom_cost
from benchmarks.cost.trade_off import Split, TradeOff, candidates, check_budgets, split, trade_off, train
from benchmarks.data.dataset import DataSet, Images
from benchmarks.data.digits import Digits
from benchmarks.errors import UserError
from benchmarks.evaluation.batch_norm import reestimate
from benchmarks.training.trainer import build
from weightaug import WAS
from weightaug.kernel_draws import Shift

BUDGETS = (0.9, 0.75)


def cell_of(*overrides: str) -> Cell:
    base = ["method=was", "method.transform=shift", "model=resnet_tiny_was", "recipe=was_smoke"]
    small = ['model.blocks="1,1"', "model.width=4", "recipe.epochs=6", "recipe.learning_rate=0.05"]
    return load([*base, *small, *overrides])[0]


@pytest.fixture(autouse=True)
def few_draws_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RANDOM_DRAWS", 5)


@pytest.fixture(scope="module")
def data() -> DataSet:
    """Some of the digits, without test images: whoever looked at them would fail."""
    whole = Digits().load(Path())
    none = Images(whole.test.images[:0], whole.test.labels[:0])
    return DataSet(Images(whole.train.images[:400], whole.train.labels[:400]), none, whole.mean, whole.std)


@pytest.fixture(scope="module")
def trained(data: DataSet) -> tuple[WAS, Split]:
    cell = cell_of()
    parts = split(data, cell.seed)
    return train(cell, Digits(), parts, "cpu"), parts


@pytest.fixture(scope="module")
def found(trained: tuple[WAS, Split]) -> TradeOff:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RANDOM_DRAWS", 5)
        return trade_off(*trained, BUDGETS)


def test_parts_share_no_image(data: DataSet) -> None:
    parts = split(data, 0)
    sizes = [len(parts.data.train), len(parts.selection), len(parts.confirmation)]
    assert sizes == [240, 80, 80] and sum(sizes) == len(data.train)

    def rows(images: Images) -> list[Any]:
        return [bytes(row) for row in images.images.flatten(1).numpy()]

    three = [rows(part) for part in (parts.data.train, parts.selection, parts.confirmation)]
    assert sorted(itertools.chain(*three)) == sorted(rows(data.train))
    again, other = split(data, 0), split(data, 1)
    assert torch.equal(again.selection.images, parts.selection.images)
    assert not torch.equal(other.selection.images, parts.selection.images)
    few = Images(data.train.images[:2], data.train.labels[:2])
    with pytest.raises(UserError, match="2 training images are too few to hold some out"):
        split(DataSet(few, few, data.mean, data.std), 0)


def test_points_are_what_the_method_itself_predicts(
    trained: tuple[WAS, Split], found: TradeOff, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, parts = trained
    normalise = parts.data.normalise
    batches = [normalise(b) for b in parts.data.train.images.split(128)]
    method.model.eval()

    def accuracy(mode: str, part: Images) -> float:
        def forward(x: Tensor) -> Tensor:
            return method.predict(x, mode)

        with reestimate(method.model, forward, batches):
            logits = forward(normalise(part.images))
        return 100 * float((logits.argmax(1) == part.labels).double().mean())

    assert found.plain.share == found.still.share == 1
    assert found.plain.selection == pytest.approx(accuracy("plain", parts.selection))
    assert found.plain.confirmation == pytest.approx(accuracy("plain", parts.confirmation))
    cost = dom_cost(method, (1, 8, 8))
    for result in found.found:
        monkeypatch.setattr(method, "draws", result.draws)
        assert result.point.selection == pytest.approx(accuracy("shadow", parts.selection))
        assert result.point.confirmation == pytest.approx(accuracy("shadow", parts.confirmation))
        assert result.point.share == cost.share(result.draws) <= result.budget


def test_search_finds_more_than_chance(found: TradeOff) -> None:
    assert [result.budget for result in found.found] == [*BUDGETS]
    assert found.images == (240, 80, 80) and found.held_out
    assert len(found.random) == module.RANDOM_DRAWS
    mean = sum(point.selection for point in found.random) / len(found.random)
    assert all(result.point.selection > mean for result in found.found)
    assert found.scored > 8 * len(found.found[0].draws)


def test_same_seed_same_result(trained: tuple[WAS, Split], found: TradeOff, data: DataSet) -> None:
    method, parts = trained
    state = {key: value.clone() for key, value in method.model.state_dict().items()}
    again = train(cell_of(), Digits(), split(data, 0), "cpu")
    assert trade_off(again, parts, BUDGETS[1:]).found == found.found[1:]  # the least budget comes first
    assert all(torch.equal(state[key], value) for key, value in method.model.state_dict().items())


def test_negative_coefficients_are_told(trained: tuple[WAS, Split]) -> None:
    method, parts = trained
    first, *others = method.layers
    before = method.coefficients.data.clone()
    try:
        method.coefficients.data.copy_(torch.tensor([-0.5] + [0.5] * len(others)))
        result = trade_off(method, parts, [], held_out=False)
    finally:
        method.coefficients.data.copy_(before)
    assert result.negative == (first,) and not result.held_out


def test_candidates_are_the_outcomes_that_differ() -> None:
    cell = cell_of("method.transform=shift_or_crop")
    method = build(cell, Digits(), "cpu")[1]
    cost = dom_cost(method, (1, 8, 8))
    for draws in candidates(method, cost).values():
        assert draws[0] == Shift(0, 0)
        assert len(draws) == 9 + 5 - 1  # T1 and T2 share the draw that changes nothing
    assert check_budgets(method, (1, 8, 8), [1.0, 0.8]).macs == cost.macs


@pytest.mark.parametrize(
    ("transform", "budget", "message"),
    [
        ("shift", 1.5, "a budget of 1.5 is no share"),
        ("shift", 0.3, "no draws cost as little as 0.3"),
        ("crop", 0.9, "no draws cost as little as 0.9 .* the least is 1.0000"),
        ("rotate", 0.9, "RandomAffine are not finitely many"),
    ],
)
def test_budgets_are_checked_without_training(transform: str, budget: float, message: str) -> None:
    method = build(cell_of(f"method.transform={transform}"), Digits(), "cpu")[1]
    with pytest.raises(UserError, match=message):
        check_budgets(method, (1, 8, 8), [0.9 if transform == "shift" else 1.0, budget])


def test_training_must_suit(data: DataSet) -> None:
    with pytest.raises(UserError, match="DOM needs shadow weights and SGD has none; use method=was"):
        cell = load(["method=sgd", "model=resnet_tiny_was", "recipe=was_smoke"])[0]
        train(cell, Digits(), split(data, 0), "cpu")
    with pytest.raises(UserError, match=r"training diverged.*lower recipe.learning_rate"):
        train(cell_of("recipe.learning_rate=1e30", "recipe.epochs=1"), Digits(), split(data, 0), "cpu")
