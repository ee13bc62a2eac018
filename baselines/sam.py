"""Sharpness-aware minimisation: SAM and ASAM, with m-sharpness."""

from __future__ import annotations

import inspect
import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from weightaug.copies import WeightCopies
from weightaug.method import Criterion, Method, backpropagate, differentiate
from weightaug.parameters import ParameterFilter, select_parameters
from weightaug.random import RandomSource
from weightaug.wrappers import distributed

STATISTICS = ("first", "both")
PRESETS: dict[str, dict[str, int | float | str | bool]] = {
    "official-damp-paper": {
        "sub_batches": 8, "epsilon": 0.0, "statistics": "first", "running_variance": "biased",
        "normalise": "kernels_and_scales", "eta_at_zero": False,
    },
    "davda54": {
        "sub_batches": 1, "epsilon": 1e-12, "statistics": "first", "running_variance": "unbiased",
        "normalise": "all", "eta_at_zero": False,
    },
    "samsung": {
        "sub_batches": 1, "epsilon": 1e-16, "statistics": "both", "running_variance": "unbiased",
        "normalise": "kernels_and_scales", "eta_at_zero": True,
    },
}  # fmt: skip
"""What three implementations do, as constructor arguments. A preset sets those that its method has."""


class _SharpnessAware(Method):
    """The step that SAM and ASAM share; they differ in the factors of the normalisation."""

    def __init__(
        self,
        model: nn.Module,
        *,
        rho: float,
        sub_batches: int,
        batch_norm: str,
        epsilon: float,
        statistics: str,
        running_variance: str,
        seed: int,
        random: RandomSource | None,
    ) -> None:
        super().__init__(model, seed=seed, random=random)
        if not 0 <= rho < math.inf:
            raise ValueError(f"rho={rho} is no radius: use 0 or more")
        if not epsilon >= 0:
            raise ValueError(f"epsilon={epsilon} is negative: use 0 or more")
        if statistics not in STATISTICS:
            raise ValueError(f"unknown statistics {statistics!r}; use {' or '.join(STATISTICS)}")
        self.rho = rho
        self.epsilon = epsilon
        self.statistics = statistics
        self.weights = select_parameters(model, "all")
        self.copies = WeightCopies(model, sub_batches, batch_norm, running_variance)

    def _factor(self, name: str, p: Tensor) -> Tensor | None:
        """The element-wise factor T in ``||T * g||``, of p's shape; None for 1."""
        raise NotImplementedError

    def _backward(self, criterion: Criterion, x: Tensor, y: Tensor) -> Tensor:
        self.copies.take(self.part)
        trained = {name: p for name, p in self.weights.items() if p.requires_grad}
        count = len(self.copies)
        clean = {name: p.detach().expand(count, *p.shape).requires_grad_() for name, p in trained.items()}
        # The step's gradient is the second one; the first must not start an exchange between processes.
        parallel = distributed(self.model)
        with nullcontext() if parallel is None else parallel.no_sync():
            loss = criterion(self.copies.forward(clean, x), y)
            gradients = differentiate(loss, clean, self.model)
        shifts = self._ascent(trained, gradients, self.copies.sizes(len(x)))
        uphill = {name: trained[name] + shift for name, shift in shifts.items()}
        loss_uphill = criterion(self.copies.forward(uphill, x, self.statistics == "first"), y)
        backpropagate(loss_uphill, self.model)
        return loss.detach()

    @torch.no_grad()
    def _ascent(
        self, weights: dict[str, nn.Parameter], gradients: dict[str, Tensor], sizes: list[int]
    ) -> dict[str, Tensor]:
        """Every copy's step uphill [M, *shape]: ``rho * T^2 g / (||T g|| + epsilon)``."""
        factors = {name: self._factor(name, weights[name]) for name in gradients}
        scaled = {name: g if (t := factors[name]) is None else g * t for name, g in gradients.items()}
        entries = [entry for g in scaled.values() for entry in g.unbind()]
        norm = torch.stack(torch._foreach_norm(entries)).view(len(scaled), -1).norm(dim=0)
        # The gradients are those of the mean over all examples; epsilon belongs to the sub-batch's own mean.
        share = _shares(sizes, norm) if self.epsilon else 0.0
        length = torch.where(norm == 0, 0, self.rho / (norm + self.epsilon * share))
        shifts = {}
        for name, g in scaled.items():
            t = factors[name]
            shift = g * length.view(-1, *(1,) * (g.dim() - 1))
            shifts[name] = shift if t is None else shift * t
        return shifts


def _shares(sizes: list[int], like: Tensor) -> Tensor:
    """Each sub-batch's share of the examples, made on the device: to copy it there would wait for all kernels."""
    least = sizes[-1]  # the others have as many or one more, the larger ones first
    larger = torch.arange(len(sizes), device=like.device) < sizes.count(least + 1)
    return (least + larger).to(like.dtype) / sum(sizes)


class SAM(_SharpnessAware):
    """Sharpness-aware minimisation (arXiv 2010.01412) with m-sharpness, as the DAMP paper's code runs it.

    The batch is split into M contiguous sub-batches. Each has its own copy of the weights, which goes uphill,

        v_m = w + rho * g_m / (||g_m|| + epsilon),    g_m = d (sum_k L_k) / d w_m  at w,

    with the norm over all trainable parameters together; the step's gradient is ``1/M * sum_m d L_m(v_m) / d
    v_m``. Where no BatchNorm couples the sub-batches ``g_m`` is the gradient of the sub-batch's own loss;
    with synchronised BatchNorm it also holds the influence on the other sub-batches through the shared
    statistics, as in the authors' code. The loss is the first pass's. Two forward and two backward passes.

    A copy whose gradient is exactly 0 stays where it is (the formula divides 0 by 0 when epsilon is 0).
    Frozen parameters and parameters that the loss does not reach are left out. The optimizer's weight decay
    plays no part in the ascent.

    The direction uphill does not depend on the scale of the loss, but for epsilon; mind it with
    ``GradScaler``.

    Args:
        model: the network to train.
        rho: length of the step uphill, in units of the weights' norm.
        sub_batches: M, over all processes together.
        batch_norm: ``"synchronised"`` (statistics over all sub-batches) or ``"separate"``.
        epsilon: added to the norm.
        statistics: the running statistics of BatchNorm come from the ``"first"`` pass or from ``"both"``.
        running_variance: ``"unbiased"`` as PyTorch keeps it, ``"biased"`` as the DAMP paper's code (Flax)
            does.
        preset: sets the arguments that :data:`PRESETS` lists: ``"official-damp-paper"``, ``"davda54"``
            (sam.py and the example of github.com/davda54/sam), ``"samsung"`` (asam.py of
            github.com/SamsungLabs/ASAM).
        seed, random: unused, SAM draws no random numbers.

    Raises:
        ValueError: rho < 0, an unknown choice, an argument that contradicts the preset, no trainable
            parameter; in ``backward``, M larger than the batch.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        rho: float = 0.05,
        sub_batches: int = 8,
        batch_norm: str = "synchronised",
        epsilon: float = 0.0,
        statistics: str = "first",
        running_variance: str = "unbiased",
        preset: str | None = None,
        seed: int = 0,
        random: RandomSource | None = None,
    ) -> None:
        chosen = with_preset(
            SAM, preset, sub_batches=sub_batches, epsilon=epsilon, statistics=statistics,
            running_variance=running_variance,
        )  # fmt: skip
        super().__init__(model, rho=rho, batch_norm=batch_norm, seed=seed, random=random, **chosen)

    def _factor(self, name: str, p: Tensor) -> None:
        return None


class ASAM(_SharpnessAware):
    """Adaptive SAM (arXiv 2102.11600) with m-sharpness, as the DAMP paper's code runs it.

    As :class:`SAM`, but the step uphill is measured relative to the weights:

        v_m = w + rho * T^2 g_m / (||T g_m|| + epsilon),    T = |w| + eta  element-wise, or 1.

    Args:
        rho: length of the step uphill, relative to the weights.
        eta: added to |w| in T.
        normalise: for which parameters T is not 1: ``"kernels_and_scales"`` (DAMP paper's code; Samsung's
            code, but for embeddings), ``"kernels"``, ``"all"`` (davda54), or a function of (name, parameter).
        eta_at_zero: whether T is eta where a weight is exactly 0 (Samsung), or 0 (``w + eta * sign(w)``, DAMP
            paper).
        model, sub_batches, batch_norm, epsilon, statistics, running_variance, preset, seed, random: as in
            SAM.

    Raises:
        ValueError: as SAM; eta < 0.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        rho: float = 1.0,
        eta: float = 0.0,
        sub_batches: int = 8,
        normalise: str | ParameterFilter = "kernels_and_scales",
        eta_at_zero: bool = False,
        batch_norm: str = "synchronised",
        epsilon: float = 0.0,
        statistics: str = "first",
        running_variance: str = "unbiased",
        preset: str | None = None,
        seed: int = 0,
        random: RandomSource | None = None,
    ) -> None:
        if not eta >= 0:
            raise ValueError(f"eta={eta} is negative: use 0 or more")
        chosen = with_preset(
            ASAM, preset, sub_batches=sub_batches, epsilon=epsilon, statistics=statistics,
            running_variance=running_variance, normalise=normalise, eta_at_zero=eta_at_zero,
        )  # fmt: skip
        self.eta = eta
        self.eta_at_zero = chosen.pop("eta_at_zero")
        self.normalised = set(select_parameters(model, chosen.pop("normalise")))
        super().__init__(model, rho=rho, batch_norm=batch_norm, seed=seed, random=random, **chosen)

    def _factor(self, name: str, p: Tensor) -> Tensor | None:
        if name not in self.normalised:
            return None
        if self.eta == 0:
            return p.abs()
        return p.abs() + (self.eta if self.eta_at_zero else self.eta * p.sign().abs())


def with_preset(method: type, preset: str | None, **arguments: Any) -> dict[str, Any]:
    """``arguments`` with those that the preset sets in place.

    Raises:
        ValueError: the preset is unknown, or an argument is neither its default nor what the preset sets.
    """
    if preset is None:
        return arguments
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; use one of {', '.join(PRESETS)}")
    defaults = inspect.signature(method).parameters
    for name, value in arguments.items():
        fixed = PRESETS[preset][name]
        if value not in (defaults[name].default, fixed):
            raise ValueError(
                f"preset {preset!r} sets {name}={fixed!r}: leave out {name}={value!r} or the preset"
            )
        arguments[name] = fixed
    return arguments
