"""Noise that strikes every value by itself: Gaussian, shot, impulse and speckle noise.

As images have 256 levels, such noise is a table: row v holds the probabilities of the 256 results of the level v. They
are computed from the noise's formula, clipping and truncation to 8 bits included. One random word per value then
picks the result by the alias method (Walker 1974, Vose 1991), exactly to 2^-24 in probability: the same integer
operations for every kind of noise, on every device.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from scipy import special
from torch import Tensor

from benchmarks.data.corruptions.draws import Draws
from weightaug.transfer import send

LEVELS = 256


def gaussian_noise(images: Tensor, draws: Draws, scale: float) -> Tensor:
    """x + N(0, scale^2), x on the scale 0..1."""
    return _strike(images, draws, "gaussian", scale)


def shot_noise(images: Tensor, draws: Draws, photons: float) -> Tensor:
    """Poisson(photons * x) / photons: fewer photons, more noise."""
    return _strike(images, draws, "shot", photons)


def impulse_noise(images: Tensor, draws: Draws, amount: float) -> Tensor:
    """A share ``amount`` of all values becomes 0 or 1, either with the same probability."""
    return _strike(images, draws, "impulse", amount)


def speckle_noise(images: Tensor, draws: Draws, scale: float) -> Tensor:
    """x + x * N(0, scale^2)."""
    return _strike(images, draws, "speckle", scale)


def probabilities(kind: str, parameter: float) -> np.ndarray:
    """P(result | level) as [256, 256], each row a distribution."""
    level = np.arange(LEVELS)[:, None] / 255.0
    if kind == "shot":
        return _poisson(level, parameter)
    if kind == "impulse":
        table = np.diag(np.full(LEVELS, 1 - parameter))
        table[:, 0] += parameter / 2
        table[:, -1] += parameter / 2
        return table
    edges = np.arange(1, LEVELS) / 255.0  # truncation: a result is below k if the value is below k / 255
    scale = parameter * (level if kind == "speckle" else np.ones_like(level))
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.where(scale > 0, special.ndtr((edges - level) / scale), edges > level)
    return np.diff(below, axis=1, prepend=0.0, append=1.0)


def _poisson(level: np.ndarray, photons: float) -> np.ndarray:
    counts = np.arange(int(photons) + 1)
    mass = np.exp(special.xlogy(counts, level * photons) - level * photons - special.gammaln(counts + 1))
    results = (np.clip(counts / photons, 0, 1) * 255).astype(np.uint8)
    table = np.zeros((LEVELS, LEVELS))
    np.add.at(table.T, results[:-1], mass[:, :-1].T)  # several counts may give one result
    table[:, -1] += 1 - table.sum(1)  # all counts from ``photons`` on
    return table.clip(min=0)


@cache
def alias_table(kind: str, parameter: float, device: torch.device) -> Tensor:
    """int32 [256 * 256]: the threshold in the upper 24 bits, the alias in the lower 8; see :func:`_strike`."""
    share = probabilities(kind, parameter) * LEVELS
    rows = np.arange(LEVELS)
    threshold = np.ones((LEVELS, LEVELS))
    alias = np.tile(rows, (LEVELS, 1))
    smallest, largest = share.copy(), share.copy()  # of the results that are not settled yet
    for _ in range(LEVELS - 1):  # the smallest share is filled up by the largest, in all rows at once
        small, large = smallest.argmin(1), largest.argmax(1)
        lacking = 1 - smallest[rows, small]
        threshold[rows, small] = 1 - lacking
        alias[rows, small] = large
        smallest[rows, small], largest[rows, small] = np.inf, -np.inf
        open_ = small != large
        smallest[rows[open_], large[open_]] -= lacking[open_]
        largest[rows[open_], large[open_]] -= lacking[open_]
    steps = np.clip(np.round(threshold * 2**24), 0, 2**24 - 1).astype(np.int64)
    alias = np.where(steps == 2**24 - 1, rows, alias)
    packed = ((steps - 2**23) << 8) | alias
    return send(torch.from_numpy(packed.astype(np.int32).ravel()), device)


def _strike(images: Tensor, draws: Draws, kind: str, parameter: float) -> Tensor:
    """The lower 8 bits of a random word choose a result; the upper 24 whether it or its alias is taken."""
    words = draws.words(*images.shape[1:])
    chosen = words & 255
    rows = (images.int() << 8).add_(chosen)
    drawn = alias_table(kind, parameter, images.device).index_select(0, rows.flatten()).view(rows.shape)
    alias = drawn & 255
    kept = words < drawn  # the lower 8 bits of both decide once in 2^24
    return alias.add_(chosen.sub_(alias).mul_(kept)).to(torch.uint8)
