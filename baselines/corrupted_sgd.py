"""SGD on corrupted inputs: the DAMP paper's Algorithm 2."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from weightaug.method import Criterion, Method, backpropagate
from weightaug.random import RandomSource

Corruption = Callable[[Tensor, torch.Generator], Tensor]
"""Maps inputs [n, ...] to corrupted inputs of the same shape, with randomness from the generator alone."""


class CorruptedSGD(Method):
    """The gradient on a batch with a random part corrupted by g: ``d mean_i L(f(x_i'; w), y_i) / d w``.

    x' = g(x) for ``round(fraction * N)`` examples drawn without replacement, x for the others; one gradient
    on the union. Which examples are drawn, and the generator that ``corruption`` gets, are functions of
    (seed, step), and of the process's rank. One forward and one backward pass.

    Source: DAMP paper, Algorithm 2 (half of every batch); not in the authors' code, and the paper does not
    state the severity used in training.

    Args:
        corruption: g, called as ``corruption(x, generator)`` on the chosen inputs [n, ...], with a generator
            on their device. It sees the inputs as the model does (after normalisation, if the loop
            normalises).
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

    def corrupt(self, x: Tensor) -> Tensor:
        """The inputs of the current step: a copy of ``x`` with its random part corrupted."""
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        key = (self.step, rank) if rank else (self.step,)  # else all processes would have the same noise
        order = torch.randperm(len(x), generator=self.random.generator("cpu", *key, "examples"))
        chosen = order[: round(self.fraction * len(x))].to(x.device)
        if len(chosen) == 0:
            return x
        corrupted = self.corruption(x[chosen], self.random.generator(x.device, *key, "corruption"))
        if corrupted.shape != x[chosen].shape:
            shapes = f"{[*x[chosen].shape]} to {[*corrupted.shape]}"
            raise ValueError(f"the corruption changes the shape of its inputs from {shapes}; it must keep it")
        return x.index_copy(0, chosen, corrupted.to(x.dtype))

    def _backward(self, criterion: Criterion, x: Tensor, y: Tensor) -> Tensor:
        loss = criterion(self.model(self.corrupt(x)), y)
        backpropagate(loss)
        return loss.detach()
