"""The optimizer a recipe asks for, over the model's parameters and those that a method adds."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from benchmarks.cell import Recipe


def build_optimizer(recipe: Recipe, model: nn.Module, extra: Iterable[nn.Parameter]) -> Optimizer:
    """SGD with (Nesterov) momentum and coupled weight decay, or AdamW with decoupled weight decay.

    With ``decay: kernels`` only parameters of two or more dimensions decay (the DAMP authors' mask on ImageNet).
    A method's own parameters, such as the coefficients of WAS, never decay.
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            (decayed if recipe.decay == "all" or parameter.ndim >= 2 else others).append(parameter)
    groups = [
        {"params": parameters, "weight_decay": weight_decay}
        for parameters, weight_decay in ((decayed, recipe.weight_decay), ([*others, *extra], 0.0))
        if parameters
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            groups,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov and recipe.momentum > 0,
        )
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(recipe.betas[0], recipe.betas[1]))


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> None:
    """Scale all gradients by ``min(1, largest / norm)``, exactly: torch's own clipping adds 1e-6 to the norm."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    torch._foreach_mul_(gradients, (largest / norm).clamp(max=1.0))


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
