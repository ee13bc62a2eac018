"""Adversarial test inputs: white-box attacks within ``|p' - p| <= epsilon`` on every pixel p of the scale 0 to 1.

The result is clipped to valid pixels before it is normalised; it is not rounded to 8 bits. Gradients are those of the
model as it is evaluated. The DAMP paper's FGSM has epsilon = 2/224.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cell import Evaluation
from benchmarks.errors import UserError

Logits = Callable[[Tensor], Tensor]
"""Maps pixels [N, C, H, W] on the scale 0 to 1 to logits [N, classes], differentiable."""
Attack = Callable[[Logits, Tensor, Tensor, int], Tensor]
"""Maps (model, pixels, labels [N], seed) to attacked pixels."""

AUTOATTACK = "pyautoattack"


def attacks(evaluation: Evaluation) -> dict[str, tuple[Attack, dict[str, Any]]]:
    """The attacks that an evaluation asks for, by name, each with its parameters, as the card keeps them."""
    check_installed(evaluation)
    chosen: dict[str, tuple[Attack, dict[str, Any]]] = {}
    if evaluation.fgsm_epsilon is not None:
        parameters: dict[str, Any] = {"epsilon": evaluation.fgsm_epsilon}
        chosen["fgsm"] = partial(fgsm, **parameters), parameters
    if (epsilon := evaluation.pgd_epsilon) is not None:
        steps, size = evaluation.pgd_steps, evaluation.pgd_step_size
        size = 2.5 * epsilon / steps if size is None else size
        parameters = {"epsilon": epsilon, "steps": steps, "step_size": size}
        chosen["pgd"] = partial(pgd, **parameters), parameters
    if evaluation.autoattack_epsilon is not None:
        parameters = {"epsilon": evaluation.autoattack_epsilon}
        chosen["autoattack"] = partial(auto_attack, **parameters), parameters
    return chosen


def predictions(name: str, parameters: dict[str, Any]) -> int | None:
    """How often the attack runs the model on a batch; None: as often as it needs for these images."""
    return None if name == "autoattack" else int(parameters.get("steps", 1))


def check_installed(evaluation: Evaluation) -> None:
    """A :class:`UserError` if an attack needs a package that is not there."""
    if evaluation.autoattack_epsilon is not None and importlib.util.find_spec(AUTOATTACK) is None:
        raise UserError(
            f"evaluation.autoattack_epsilon needs the package {AUTOATTACK}, which is not installed: "
            f"`pip install {AUTOATTACK}`"
        )


def fgsm(logits: Logits, pixels: Tensor, labels: Tensor, seed: int = 0, *, epsilon: float) -> Tensor:
    """``clip(p + epsilon sign(dL/dp), 0, 1)`` with L the cross-entropy of the true label; nothing is drawn.

    Goodfellow et al., arXiv 1412.6572; DAMP paper, section 4.
    """
    return (pixels + epsilon * _gradient(logits, pixels, labels).sign()).clamp(0, 1)


def pgd(
    logits: Logits,
    pixels: Tensor,
    labels: Tensor,
    seed: int = 0,
    *,
    epsilon: float,
    steps: int,
    step_size: float,
) -> Tensor:
    """FGSM steps of ``step_size`` from a random start, each projected onto the epsilon ball and valid pixels.

    Madry et al., arXiv 1706.06083. The start is uniform in the ball, drawn on the CPU.
    """
    noise = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(seed)).to(pixels)
    low, high = (pixels - epsilon).clamp(min=0), (pixels + epsilon).clamp(max=1)
    attacked = (pixels + epsilon * (2 * noise - 1)).clamp(0, 1)
    for _ in range(steps):
        attacked = attacked + step_size * _gradient(logits, attacked, labels).sign()
        attacked = attacked.maximum(low).minimum(high)
    return attacked


def auto_attack(logits: Logits, pixels: Tensor, labels: Tensor, seed: int = 0, *, epsilon: float) -> Tensor:
    """The standard version of AutoAttack (Croce and Hein, arXiv 2003.01690), by its authors' package."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(logits, norm="Linf", eps=epsilon, seed=seed % 2**31, device=pixels.device)
    return attack.run_standard_evaluation(pixels, labels, batch_size=len(pixels))[0]


@torch.enable_grad()
def _gradient(logits: Logits, pixels: Tensor, labels: Tensor) -> Tensor:
    pixels = pixels.detach().requires_grad_()
    loss = F.cross_entropy(logits(pixels).float(), labels, reduction="sum")
    return torch.autograd.grad(loss, pixels)[0]
