"""SGD on corrupted inputs: the DAMP paper's Algorithm 2."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from weightaug.method import Criterion, Method, backpropagate
from weightaug.parts import Part
from weightaug.random import RandomSource
from weightaug.transfer import send

Corruption = Callable[..., Tensor]
"""Maps inputs [n, ...] to corrupted inputs of the same shape, with randomness from the generator alone."""


class CorruptedSGD(Method):
    """The gradient on a batch with a random part corrupted by g: ``d mean_i L(f(x_i'; w), y_i) / d w``.

    x' = g(x) for ``round(fraction * N)`` examples drawn without replacement, x for the others; one gradient
    on the union. Which examples are drawn, and the generator that ``corruption`` gets, are functions of
    (seed, step), drawn for the whole mini-batch whatever part of it is given. One forward and one backward pass.

    Source: DAMP paper, Algorithm 2 (half of every batch); not in the authors' code, and the paper does not
    state the severity used in training.

    Args:
        corruption: g, called as ``corruption(x, generator)`` on the chosen inputs [n, ...], with a generator
            on their device. It sees the inputs as the model does (after normalisation, if the loop
            normalises). If it has an argument ``places`` it gets that as well, int64 [n]: the inputs' numbers
            among all that are chosen in the step, so that each can have random numbers of its own whatever
            part of the mini-batch it is in. Without, each part has another generator.
        fraction: share of the batch that is corrupted, 0 to 1.

    Raises:
        ValueError: fraction outside its range, or a corruption that changes the shape.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        corruption: Corruption,
        fraction: float = 0.5,
        seed: int = 0,
        random: RandomSource | None = None,
    ) -> None:
        super().__init__(model, seed=seed, random=random)
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction is {fraction}; it is a share of the batch, from 0 to 1")
        self.corruption = corruption
        self.fraction = fraction
        self._by_place = "places" in inspect.signature(corruption).parameters

    def corrupt(self, x: Tensor) -> Tensor:
        """The inputs of the current step: a copy of ``x`` with its random part corrupted."""
        part = self.part if self.part.size == len(x) else Part.of(self.model, len(x))
        order = torch.randperm(part.total, generator=self.random.generator("cpu", self.step, "examples"))
        chosen = order[: round(self.fraction * part.total)] - part.start
        places = ((chosen >= 0) & (chosen < part.size)).nonzero().flatten()
        chosen = send(chosen[places], x.device)
        if len(chosen) == 0:
            return x
        # Without places all parts would have the same noise.
        key = (self.step, part.number) if part.number and not self._by_place else (self.step,)
        numbered = {"places": send(places, x.device)} if self._by_place else {}
        generator = self.random.generator(x.device, *key, "corruption")
        corrupted = self.corruption(x[chosen], generator, **numbered)
        if corrupted.shape != x[chosen].shape:
            shapes = f"{[*x[chosen].shape]} to {[*corrupted.shape]}"
            raise ValueError(f"the corruption changes the shape of its inputs from {shapes}; it must keep it")
        return x.index_copy(0, chosen, corrupted.to(x.dtype))

    def _backward(self, criterion: Criterion, x: Tensor, y: Tensor) -> Tensor:
        loss = criterion(self.model(self.corrupt(x)), y)
        backpropagate(loss)
        return loss.detach()
