"""Different weight copies, and the stacked forward pass held against one pass per sub-batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from weightaug import WeightCopies


def different_copies(model: nn.Module, count: int, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {
        name: (p.detach() + 0.1 * torch.randn(count, *p.shape, dtype=p.dtype)).requires_grad_()
        for name, p in model.named_parameters()
    }


def run(copies: WeightCopies, weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The outputs, and every copy's gradient of a loss that weighs all of them differently."""
    output = copies.forward(weights, x)
    factors = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    gradients = torch.autograd.grad((output * factors).sum(), list(weights.values()), allow_unused=True)
    return output, [
        torch.zeros_like(w) if g is None else g for g, w in zip(gradients, weights.values(), strict=True)
    ]


def assert_stacked_equals_loop(model: nn.Module, m: int, x: Tensor, **options: Any) -> None:
    """Same outputs, gradients and buffers; and the stacked pass was indeed one pass."""
    start = {name: buffer.clone() for name, buffer in model.named_buffers()}
    results = []
    for stacked in (True, False):
        for name, buffer in model.named_buffers():
            buffer.copy_(start[name])
        copies = WeightCopies(model, m, stacked=stacked, **options)
        output, gradients = run(copies, different_copies(model, m), x)
        results.append([output, *gradients, *(b.clone() for b in model.buffers())])
        assert copies.stacked is stacked
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-10)
