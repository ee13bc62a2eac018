"""What DOM can save: the multiply-adds of a network with shadow weights, for given draws and over all draws.

A zero tap saves where whole rows or columns of a kernel are zero, as a T1 shift leaves them: see
:func:`weightaug.materialise`, whose networks have the counts that are computed here.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.errors import UserError
from weightaug import WAS
from weightaug.kernel_draws import Draw, LayerDraw, Shift, Size, kernel_size, support
from weightaug.kernel_transforms import Discrete, KernelTransform, Mixture, RandomShift
from weightaug.materialise import shrinks

Distance = tuple[int, int]
"""How far a shift moves the taps along its longer and its shorter way: (1, 0) along one axis, (1, 1) along both."""


@dataclass(frozen=True)
class ShadowLayer:
    """One convolution with a shadow weight."""

    size: Size
    """Of the kernel in taps."""
    macs: int
    """Of the dense convolution, for one input."""
    shrinks: bool
    """Whether materialising it leaves zero taps out."""

    def kept(self, draw: LayerDraw) -> int:
        """Its multiply-adds with the shadow weight of ``draw``."""
        if not self.shrinks:
            return self.macs
        rows, columns = support(draw, self.size)
        return self.macs // math.prod(self.size) * len(rows) * len(columns)


@dataclass(frozen=True)
class DomCost:
    """The multiply-adds of a network with shadow weights: all of them are known from those of its layers."""

    macs: int
    """Of the dense network, for one input."""
    convolution_macs: int
    """Those of its convolutions."""
    layers: dict[str, ShadowLayer] = field(repr=False)
    """The shadow layers by name."""

    def macs_with(self, draws: Mapping[str, LayerDraw]) -> int:
        """The multiply-adds of the network that is materialised with ``draws``; layers without one stay dense."""
        return self.macs - sum(
            layer.macs - layer.kept(draws[name]) for name, layer in self.layers.items() if name in draws
        )

    def share(self, draws: Mapping[str, LayerDraw]) -> float:
        """``macs_with`` relative to the dense network."""
        return self.macs_with(draws) / self.macs

    def saving(self, draw: LayerDraw) -> float:
        """The share of all multiply-adds that is saved where every shadow layer has this draw."""
        return 1 - self.share(dict.fromkeys(self.layers, draw))

    def expected_saving(self, transform: KernelTransform) -> float:
        """The mean saving over the draws of ``transform``, exact from its outcomes' probabilities.

        Raises:
            UserError: the outcomes are not finitely many.
        """
        saved = math.fsum(
            probability * (layer.macs - layer.kept(draw))
            for layer in self.layers.values()
            for draw, probability in outcomes(transform, layer.size).items()
        )
        return saved / self.macs


def dom_cost(method: WAS, input_shape: tuple[int, ...]) -> DomCost:
    """Count the network of ``method`` on one input of ``input_shape`` [C, H, W], layer by layer.

    By shapes alone and torch's counter, so that fvcore's count of the materialised network is a check on it. The
    network may be on the device ``meta``.
    """
    model = method.model
    names = {id(layer.weight): name for name, layer in method.layers.items()}
    macs = dict.fromkeys(method.layers, 0)
    convolutions = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal convolutions
        assert isinstance(module, nn.Conv1d | nn.Conv2d)
        here = output.numel() * module.weight[0].numel()
        convolutions += here
        if id(module.weight) in names:  # a layer's own, or one that shares its weight
            macs[names[id(module.weight)]] += here

    modules = [module for module in model.modules() if isinstance(module, nn.Conv1d | nn.Conv2d)]
    training = {module: module.training for module in model.modules()}
    weight = next(model.parameters())
    handles = [module.register_forward_hook(add) for module in modules]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(torch.zeros(1, *input_shape, dtype=weight.dtype, device=weight.device))
    finally:
        for module, flag in training.items():
            module.training = flag
        for handle in handles:
            handle.remove()
    layers = {
        name: ShadowLayer(kernel_size(layer.weight), macs[name], shrinks(model, layer))
        for name, layer in method.layers.items()
    }
    return DomCost(counter.get_total_flops() // 2, convolutions, layers)


def outcomes(transform: KernelTransform, size: Size) -> dict[Draw, float]:
    """Every outcome of ``transform`` for kernels of ``size`` with its probability.

    Raises:
        UserError: the outcomes are not finitely many.
    """
    if isinstance(transform, Discrete):
        return transform.outcomes(size)
    if not isinstance(transform, Mixture):
        raise UserError(
            f"the outcomes of {type(transform).__name__} are not finitely many, so their probabilities are not "
            "known; use shift, crop, identity, flips or their mixtures"
        )
    mixed: dict[Draw, float] = {}
    for part in transform.transforms:
        for draw, probability in outcomes(part, size).items():
            mixed[draw] = mixed.get(draw, 0.0) + probability / len(transform.transforms)
    return mixed


def distance(shift: Shift) -> Distance:
    """How far ``shift`` moves the taps."""
    near, far = sorted((abs(shift.dx), abs(shift.dy)))
    return far, near


def possible_shifts(cost: DomCost, translate: float) -> list[Shift]:
    """The outcomes of T1 that every shadow layer can draw."""
    sets = [RandomShift(translate).outcomes(layer.size).keys() for layer in cost.layers.values()]
    common = set.intersection(*map(set, sets))
    return [draw for draw in sets[0] if draw in common and isinstance(draw, Shift)]


def saving_by_distance(cost: DomCost, translate: float) -> dict[Distance, float]:
    """The saving where every shadow layer draws the same shift, by how far it moves (the mean where they differ)."""
    savings: dict[Distance, list[float]] = {}
    for shift in possible_shifts(cost, translate):
        savings.setdefault(distance(shift), []).append(cost.saving(shift))
    return {key: statistics.fmean(values) for key, values in sorted(savings.items())}


def mean_saving_moved(cost: DomCost, translate: float) -> float:
    """The plain mean of the savings of all shifts but the one that moves nothing."""
    moved = [cost.saving(shift) for shift in possible_shifts(cost, translate) if shift != Shift(0, 0)]
    return statistics.fmean(moved) if moved else 0.0


def savings(method: WAS, input_shape: tuple[int, ...], translate: float = 0.3) -> dict[str, float]:
    """What DOM saves, in %, as the card keeps it: see :mod:`benchmarks.results.card`.

    Args:
        input_shape: [C, H, W] of one input.
        translate: T1's furthest shift as a share of the kernel's size, the authors' unless told.
    """
    cost = dom_cost(method, input_shape)
    if not cost.layers:
        return {}
    found = {
        "dom_saving_moved": mean_saving_moved(cost, translate),
        "dom_saving_shift": cost.expected_saving(RandomShift(translate)),
    }
    by_distance = saving_by_distance(cost, translate)
    found |= {
        name: by_distance[way]
        for name, way in (("dom_saving_axis", (1, 0)), ("dom_saving_diagonal", (1, 1)))
        if way in by_distance
    }
    with contextlib.suppress(UserError):
        found["dom_saving_expected"] = cost.expected_saving(method.transform)
    return {name: 100 * share for name, share in found.items()}


def sampled_saving(cost: DomCost, method: WAS, count: int) -> tuple[float, float]:
    """Mean and standard error of the savings of ``count`` draws of ``method``."""
    saved = [1 - cost.share(method.draw("saving", number)) for number in range(count)]
    return statistics.fmean(saved), statistics.stdev(saved) / math.sqrt(count)
