"""WAS within SAM and within DAMP, as the harness builds them from a config."""

from __future__ import annotations

from torch import nn

from baselines import SAM
from weightaug import DAMP, WAS
from weightaug.random import RandomSource


def was_sam(
    model: nn.Module,
    *,
    rho: float = 0.05,
    sub_batches: int = 8,
    batch_norm: str = "synchronised",
    running_variance: str = "unbiased",
    transform: str = "shift_or_crop",
    translate: float = 0.3,
    scale_min: float = 0.8,
    scale_max: float = 1.0,
    layers: str = "auto",
    coefficient: str = "random",
    coefficient_in_aom: bool = False,
    per_kernel: bool = False,
    seed: int = 0,
    random: RandomSource | None = None,
) -> WAS:
    """``WAS(model, within=SAM(model))``: SAM on the loss of the shadow weights. Two passes in each direction.

    Args:
        rho, sub_batches, batch_norm, running_variance: SAM's.
        transform, translate, scale_min, scale_max, layers, coefficient, coefficient_in_aom, per_kernel: WAS's.

    Raises:
        ValueError: as SAM and WAS.
    """
    within = SAM(
        model, rho=rho, sub_batches=sub_batches, batch_norm=batch_norm, running_variance=running_variance,
        seed=seed, random=random,
    )  # fmt: skip
    return WAS(
        model, within=within, transform=transform, translate=translate, scale_min=scale_min, scale_max=scale_max,
        layers=layers, coefficient=coefficient, coefficient_in_aom=coefficient_in_aom, per_kernel=per_kernel,
        seed=seed, random=random,
    )  # fmt: skip


def was_damp(
    model: nn.Module,
    *,
    sigma: float = 0.2,
    sub_batches: int = 8,
    perturb: str = "kernels_and_scales",
    noise: str = "gaussian",
    batch_norm: str = "synchronised",
    running_variance: str = "unbiased",
    transform: str = "shift_or_crop",
    translate: float = 0.3,
    scale_min: float = 0.8,
    scale_max: float = 1.0,
    layers: str = "auto",
    coefficient: str = "random",
    coefficient_in_aom: bool = False,
    per_kernel: bool = False,
    seed: int = 0,
    random: RandomSource | None = None,
) -> WAS:
    """``WAS(model, within=DAMP(model))``: the plain weights are noisy, and T and K come after the noise.

    Args:
        sigma, sub_batches, perturb, noise, batch_norm, running_variance: DAMP's.
        transform, translate, scale_min, scale_max, layers, coefficient, coefficient_in_aom, per_kernel: WAS's.

    Raises:
        ValueError: as DAMP and WAS.
    """
    within = DAMP(
        model, sigma=sigma, sub_batches=sub_batches, perturb=perturb, noise=noise, batch_norm=batch_norm,
        running_variance=running_variance, seed=seed, random=random,
    )  # fmt: skip
    return WAS(
        model, within=within, transform=transform, translate=translate, scale_min=scale_min, scale_max=scale_max,
        layers=layers, coefficient=coefficient, coefficient_in_aom=coefficient_in_aom, per_kernel=per_kernel,
        seed=seed, random=random,
    )  # fmt: skip
