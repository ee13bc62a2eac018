"""Training under random weight perturbations: DAMP (multiplicative) and DAAP (additive)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from weightaug.copies import WeightCopies
from weightaug.method import Criterion, Method, backpropagate
from weightaug.parameters import ParameterFilter, select_parameters
from weightaug.random import RandomSource

NOISES = ("gaussian", "uniform", "log_normal", "bernoulli")


class _NoisyWeights(Method):
    """M sub-batches, each seen by its own noisy copy of the weights; the gradients are averaged."""

    chain_rule = False

    def __init__(
        self,
        model: nn.Module,
        *,
        sigma: float,
        sub_batches: int,
        perturb: str | ParameterFilter,
        noise: str,
        batch_norm: str,
        running_variance: str,
        seed: int,
        random: RandomSource | None,
    ) -> None:
        super().__init__(model, seed=seed, random=random)
        if not 0 <= sigma < math.inf:
            raise ValueError(f"sigma={sigma} is no standard deviation: use 0 or more")
        if noise not in NOISES:
            raise ValueError(f"unknown noise {noise!r}; use one of {', '.join(NOISES)}")
        self.sigma = sigma
        self.noise = noise
        self.perturbed = select_parameters(model, perturb)
        self.copies = WeightCopies(model, sub_batches, batch_norm, running_variance)

    def _backward(self, criterion: Criterion, x: Tensor, y: Tensor) -> Tensor:
        self.copies.take(self.part)
        loss = criterion(self.copies.forward(self._noisy(), x), y)
        backpropagate(loss, self.model)
        return loss.detach()

    def _noisy(self) -> dict[str, Tensor]:
        """The perturbed weights as stacks [M, *shape].

        What is added to a parameter is a constant for autograd, so each copy's gradient reaches the parameter
        without a factor, and the copies' gradients are summed on the way.
        """
        trained = {name: p for name, p in self.perturbed.items() if p.requires_grad}
        weights = {}
        for name, deviation in self._deviations(trained).items():
            p = trained[name]
            shift = self._shift(p, deviation.to(p.dtype))
            weights[name] = p + (shift if self.chain_rule else shift.detach())
        return weights

    def _shift(self, p: Tensor, deviation: Tensor) -> Tensor:
        raise NotImplementedError

    def _deviations(self, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Random numbers [M, *shape] of mean 0 and standard deviation sigma."""
        sigma = self.sigma
        draw = self.random.normal if self.noise in ("gaussian", "log_normal") else self.random.uniform
        numbers = draw(like, self.step, self.copies.numbers)
        if self.noise == "gaussian":
            return {name: z * sigma for name, z in numbers.items()}
        if self.noise == "uniform":
            return {name: (2 * u - 1) * (math.sqrt(3) * sigma) for name, u in numbers.items()}
        variance = math.log1p(sigma**2)
        if self.noise == "log_normal":
            return {name: torch.expm1(z * math.sqrt(variance) - variance / 2) for name, z in numbers.items()}
        keep = 1 / (1 + sigma**2)
        return {name: (u < keep) / keep - 1 for name, u in numbers.items()}


class DAMP(_NoisyWeights):
    """Data augmentation via multiplicative perturbations (arXiv 2406.16540, Algorithm 1).

    The batch is split into M contiguous sub-batches. Sub-batch m sees the weights ``w * xi_m`` with fresh
    noise ``xi_m = 1 + sigma * z_m`` per element, sub-batch and step, and the gradient is

        g = 1/M * sum_m  d L_m(v) / d v  at v = w * xi_m,

    taken with respect to the perturbed weights, so without the chain-rule factor ``xi_m``. Weight decay is
    the optimizer's, on the unperturbed weights. One forward and one backward pass. The loss and the running
    statistics of BatchNorm are those of the noisy pass. Frozen parameters are not perturbed.

    Args:
        model: the network to train.
        sigma: standard deviation of the noise; 0.2 is the paper's value for CIFAR-10 and TinyImageNet.
        sub_batches: M; 8 in the paper's code, over all processes together. A batch whose size is no multiple
            of M is split into sub-batches that differ by one example, and the loss is still the mean over
            all.
        perturb: ``"kernels_and_scales"`` (the authors' code), ``"kernels"``, ``"all"``, or a function of
            (name, parameter).
        noise: distribution of xi, always of mean 1 and standard deviation sigma: ``"gaussian"``,
            ``"uniform"``, ``"log_normal"``, or ``"bernoulli"`` (weight dropout with rate sigma^2 / (1 +
            sigma^2), rescaled).
        chain_rule: True takes the gradient with respect to w instead, with the factor xi_m.
        batch_norm: ``"synchronised"`` (statistics over all sub-batches) or ``"separate"``.
        running_variance: ``"unbiased"`` as PyTorch keeps it, ``"biased"`` as the authors' code (Flax) does.
        seed: the noise is a function of (seed, step, sub-batch).
        random: replaces the source of the noise.

    Raises:
        ValueError: sigma < 0, an unknown choice, nothing to perturb; in ``backward``, M larger than the
            batch.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sigma: float = 0.2,
        sub_batches: int = 8,
        perturb: str | ParameterFilter = "kernels_and_scales",
        noise: str = "gaussian",
        chain_rule: bool = False,
        batch_norm: str = "synchronised",
        running_variance: str = "unbiased",
        seed: int = 0,
        random: RandomSource | None = None,
    ) -> None:
        super().__init__(
            model, sigma=sigma, sub_batches=sub_batches, perturb=perturb, noise=noise, batch_norm=batch_norm,
            running_variance=running_variance, seed=seed, random=random,
        )  # fmt: skip
        self.chain_rule = chain_rule

    def _shift(self, p: Tensor, deviation: Tensor) -> Tensor:
        return p * deviation


class DAAP(_NoisyWeights):
    """Data augmentation via additive perturbations (arXiv 2406.16540, Algorithm 3).

    As :class:`DAMP` with ``w + sigma * z_m`` in place of ``w * (1 + sigma * z_m)``. The authors' code has no
    DAAP; which parameters it perturbs is not stated, so it perturbs those that DAMP does. Arguments and
    errors as DAMP.

    Args:
        sigma: standard deviation of the noise, in units of the weights; the paper's Figure 7 compares 0.005,
            0.01, 0.02 and 0.04.
        noise: ``"gaussian"`` or ``"uniform"``, of mean 0 and standard deviation sigma.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sigma: float = 0.01,
        sub_batches: int = 8,
        perturb: str | ParameterFilter = "kernels_and_scales",
        noise: str = "gaussian",
        batch_norm: str = "synchronised",
        running_variance: str = "unbiased",
        seed: int = 0,
        random: RandomSource | None = None,
    ) -> None:
        if noise not in ("gaussian", "uniform"):
            raise ValueError(f"DAAP's noise {noise!r} must be symmetric about 0: use gaussian or uniform")
        super().__init__(
            model, sigma=sigma, sub_batches=sub_batches, perturb=perturb, noise=noise, batch_norm=batch_norm,
            running_variance=running_variance, seed=seed, random=random,
        )  # fmt: skip

    def _shift(self, p: Tensor, deviation: Tensor) -> Tensor:
        return deviation
