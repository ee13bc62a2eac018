"""SAM and adaptive SAM against the package pytorch_optimizer, M = 1."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_optimizer
import torch
import torch.nn.functional as F
from small_networks import batch, mixed

from baselines import ASAM, SAM

BASE: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}


@pytest.mark.parametrize("adaptive", [False, True])
def test_weights_after_steps(adaptive: bool) -> None:
    """Its BatchNorm sees both passes, its epsilon is 1e-12, its adaptive form covers every parameter."""
    ours, theirs = mixed(), mixed()
    options: dict[str, Any] = {"rho": 0.5, "sub_batches": 1, "epsilon": 1e-12, "statistics": "both"}
    method = ASAM(ours, normalise="all", **options) if adaptive else SAM(ours, **options)
    optimizer = torch.optim.SGD(ours.parameters(), **BASE)
    other = pytorch_optimizer.SAM(theirs.parameters(), torch.optim.SGD, rho=0.5, adaptive=adaptive, **BASE)
    for number in range(3):
        x, y = batch(6, number)
        optimizer.zero_grad()
        method.backward(F.cross_entropy, x, y)
        optimizer.step()

        def closure(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            loss = F.cross_entropy(theirs(x), y)
            loss.backward()
            return loss

        other.zero_grad()
        closure()
        other.step(closure)
    # It takes the norm in single precision.
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-6, atol=1e-9)
