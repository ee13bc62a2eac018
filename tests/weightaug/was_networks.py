"""The small network of the WAS tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def network(norm: bool = True) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1, stride=2, bias=False),
        nn.BatchNorm2d(6) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Conv2d(6, 6, 5, padding=2, groups=6),
        nn.Conv2d(6, 8, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


def batch(seed: int = 0, count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 8, 8, generator=generator), torch.arange(count) % 3


def seeded(seed: int = 0, **options: Any) -> nn.Sequential:
    torch.manual_seed(seed)
    return network(**options)


def gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]
