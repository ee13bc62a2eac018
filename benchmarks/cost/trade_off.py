"""Accuracy against FLOPs of DOM with fixed draws: networks that are materialised, on training images held out.

Test images are never looked at. The training images are split in three: one part to train on and to re-estimate
BatchNorm, one for the search over the draws, one that confirms what the search found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.cell import Cell
from benchmarks.cost.dom_savings import DomCost, dom_cost, outcomes
from benchmarks.cost.draw_search import Draws, DrawSearch, Score, check_budget
from benchmarks.data.dataset import DataSet, Images, Source
from benchmarks.errors import UserError
from benchmarks.evaluation.batch_norm import reestimate
from benchmarks.training.trainer import Trainer
from weightaug import WAS, Method, materialise
from weightaug.kernel_draws import Draw, LayerDraw, Shift
from weightaug.random import derive_seed

HELD_OUT = 0.2
"""The share of the training images that each of the two parts held out has."""
REESTIMATION_BATCHES = 16
EVALUATION_BATCH = 512
RANDOM_DRAWS = 30


@dataclass(frozen=True)
class Split:
    """A training set in three parts."""

    data: DataSet
    """The data set with the images to train on alone as its ``train``."""
    selection: Images
    """What the search measures draws on."""
    confirmation: Images
    """What the search never saw."""


@dataclass(frozen=True)
class Point:
    """One network: its FLOPs as a share of the plain one's, and its accuracy in % on the two parts held out."""

    share: float
    selection: float
    confirmation: float


@dataclass(frozen=True)
class Found:
    """What the search found for one budget."""

    budget: float
    draws: Draws
    point: Point


@dataclass(frozen=True)
class TradeOff:
    """Accuracy and FLOPs of one trained network."""

    images: tuple[int, int, int]
    """How many were there to train on, to search with and to confirm with."""
    held_out: bool
    """Whether the network was trained without the latter two."""
    plain: Point
    """The plain weights without K: AOM."""
    still: Point
    """The plain weights with K: DOM with draws that move nothing."""
    negative: tuple[str, ...]
    """The layers whose K has become negative: the plain weights without K have their sign turned there."""
    random: tuple[Point, ...]
    """DOM as published: draws by chance."""
    found: tuple[Found, ...]
    """By budget, as they were given."""
    scored: int
    """How many networks the search has measured."""


def split(data: DataSet, seed: int) -> Split:
    """The training images of ``data`` in three parts, by chance but always the same for ``seed``."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "held out"))
    order = torch.randperm(len(data.train), generator=generator).to(data.train.labels.device)
    part = round(HELD_OUT * len(order))
    if part == 0:
        raise UserError(f"{len(order)} training images are too few to hold some out; use a larger data set")
    chosen = order.split([part, part, len(order) - 2 * part])
    selection, confirmation, fit = (Images(data.train.images[i], data.train.labels[i]) for i in chosen)
    return Split(replace(data, train=fit), selection, confirmation)


def train(cell: Cell, source: Source, parts: Split, device: str) -> WAS:
    """The cell's method, trained on the first part alone.

    Raises:
        UserError: training diverged.
    """
    trainer = Trainer(cell, source, parts.data, device)
    method = with_shadows(trainer.method)
    if trainer.run().diverged_at:
        raise UserError("training diverged, so there is no network to search on; lower recipe.learning_rate")
    return method


def with_shadows(method: Method) -> WAS:
    """``method``, or an error where it has no shadow weights."""
    if not isinstance(method, WAS):
        raise UserError(f"DOM needs shadow weights and {type(method).__name__} has none; use method=was")
    return method


def trade_off(
    method: WAS, parts: Split, budgets: Sequence[float], batch_size: int = 128, held_out: bool = True
) -> TradeOff:
    """Search for the best draws within each budget and set them beside the plain weights and draws by chance.

    Every network is measured with BatchNorm statistics of its own, re-estimated on ``parts.data.train``.

    Args:
        method: with trained weights; a method from anywhere will do, its model in whatever mode.
        parts: the training images, on the model's device.
        budgets: shares of the plain network's FLOPs that the draws may cost.
        batch_size: of the batches that BatchNorm is re-estimated from.
        held_out: whether the weights were trained on ``parts.data.train`` alone; else the two other parts are
            training images like any other, which the result and its report say.

    Raises:
        UserError: a budget that is no share or cannot be reached, a transform with endlessly many outcomes.
    """
    images = parts.data.train.images
    cost = check_budgets(method, tuple(images.shape[1:]), budgets)
    measured = _Measurement(method, parts, batch_size)
    search = DrawSearch(cost, candidates(method, cost), measured.score)
    best = {
        budget: search.best(budget).draws for budget in sorted(budgets)
    }  # a larger one knows the smaller's
    by_chance = [method.draw("trade-off", number) for number in range(RANDOM_DRAWS)]

    def point(draws: Mapping[str, LayerDraw]) -> Point:
        return measured.point(materialise(method, draws), cost.share(draws))

    return TradeOff(
        images=(len(images), len(parts.selection), len(parts.confirmation)),
        held_out=held_out,
        plain=measured.point(method.model, 1.0),
        still=point(search.start().draws),
        negative=tuple(name for name, k in (method.coefficients_by_layer() or {}).items() if k < 0),
        random=tuple(map(point, by_chance)),
        found=tuple(Found(budget, best[budget], point(best[budget])) for budget in budgets),
        scored=search.scored,
    )


def check_budgets(method: WAS, input_shape: tuple[int, ...], budgets: Sequence[float]) -> DomCost:
    """The method's cost; an error for a budget that no draws can meet. Needs no trained weights.

    Raises:
        UserError: a budget that is no share or cannot be reached, a transform with endlessly many outcomes.
    """
    cost = dom_cost(method, input_shape)
    for budget in budgets:
        check_budget(cost, candidates(method, cost), budget)
    return cost


def candidates(method: WAS, cost: DomCost) -> dict[str, list[Draw]]:
    """What each layer may have: every outcome of the method's transform, after the draw that changes nothing."""
    found: dict[str, list[Draw]] = {}
    for name, layer in cost.layers.items():
        still = Shift(0, 0)
        others = outcomes(method.transform, layer.size)
        found[name] = [still] + [
            draw for draw in others if draw.matrix(layer.size) != still.matrix(layer.size)
        ]
    return found


class _Measurement:
    """Errors and losses of networks on the parts held out."""

    def __init__(self, method: WAS, parts: Split, batch_size: int) -> None:
        self.method, self.parts = method, parts
        normalise = parts.data.normalise
        batches = parts.data.train.images.split(batch_size)[:REESTIMATION_BATCHES]
        self.batches = [normalise(batch) for batch in batches]
        self.inputs = {
            id(part): [normalise(batch) for batch in part.images.split(EVALUATION_BATCH)]
            for part in (parts.selection, parts.confirmation)
        }

    def score(self, draws: Draws) -> Score:
        """The score of the materialised network on the selection part."""
        (score,) = self._scores(materialise(self.method, draws), self.parts.selection)
        return score

    def point(self, network: nn.Module, share: float) -> Point:
        parts = (self.parts.selection, self.parts.confirmation)
        scores = self._scores(network, *parts)
        accuracies = [100 * (1 - s.errors / len(part)) for s, part in zip(scores, parts, strict=True)]
        return Point(share, *accuracies)

    def _scores(self, network: nn.Module, *parts: Images) -> list[Score]:
        training = {module: module.training for module in network.modules()}
        network.eval()
        try:
            with reestimate(network, network, self.batches), torch.no_grad():
                return [self._on(network, part) for part in parts]
        finally:
            for module, flag in training.items():
                module.training = flag

    def _on(self, network: nn.Module, part: Images) -> Score:
        logits = torch.cat([network(x) for x in self.inputs[id(part)]]).float()
        errors = int((logits.argmax(1) != part.labels).sum())
        return Score(float(F.cross_entropy(logits, part.labels)), errors)
