"""The small network of the WAS tests, and one process of a distributed step. Imports little: processes start soon."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightaug import WAS


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


def distributed(rank: int, rendezvous: str) -> None:
    """One of two processes: its half of the batch must give the gradients of the whole one."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    whole, half = seeded(norm=False), nn.parallel.DistributedDataParallel(seeded(norm=False))
    single, double = WAS(whole, seed=1), WAS(half, seed=1)
    for step in range(2):  # two steps: gradients accumulate
        x, y = batch(step)
        single.backward(F.cross_entropy, x, y)
        double.backward(F.cross_entropy, x[3 * rank : 3 * rank + 3], y[3 * rank : 3 * rank + 3])
    assert single.coefficients is not None
    assert double.coefficients is not None
    pairs = zip(gradients(whole), gradients(half), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in pairs)
    assert torch.allclose(single.coefficients.grad, double.coefficients.grad, rtol=1e-4, atol=1e-6)
    torch.distributed.destroy_process_group()
