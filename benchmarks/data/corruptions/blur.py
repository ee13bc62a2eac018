"""Blurs: Gaussian, defocus, glass, motion and zoom."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from benchmarks.data.corruptions.draws import Draws
from benchmarks.data.corruptions.filters import clipped_zoom, gaussian, motion, padded, pixels_at

GRID = 2.0**-32
"""What the weights of the disk are rounded to."""


def gaussian_blur(images: Tensor, draws: Draws, sigma: float) -> Tensor:
    """Convolution with a Gaussian of ``sigma`` pixels, cut off at 4 sigma; borders repeated."""
    return gaussian(images.double() / 255, sigma) * 255


def defocus_blur(images: Tensor, draws: Draws, radius: float, alias_sigma: float) -> Tensor:
    """Convolution with a disk of ``radius`` pixels, itself smoothed by ``alias_sigma`` pixels; borders mirrored.

    By Fourier transforms, exact all the same: sums of 8-bit values times the kernel's weights are whole multiples of
    ``GRID``, a thousand times what the transforms' rounding moves them by, and are rounded to such.
    """
    height, width = images.shape[2:]
    kernel = disk(radius, alias_sigma).to(images.device)
    reach = len(kernel) // 2
    wide = padded(padded(images, 2, reach, "mirror"), 3, reach, "mirror").double()
    size = [next_fast_len(side, real=True) for side in wide.shape[2:]]
    product = torch.fft.rfft2(wide, s=size) * torch.fft.rfft2(kernel, s=size)
    blurred = torch.fft.irfft2(product, s=size)
    inside = blurred[:, :, 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]
    return (inside / GRID).round_().mul_(GRID)


@cache
def disk(radius: float, alias_sigma: float) -> Tensor:
    """The kernel, square, of odd size and the same upside down; computed in float32, as the reference's."""
    half = 8 if radius <= 8 else int(radius)
    axis = np.arange(-half, half + 1)
    kernel = (axis[:, None] ** 2 + axis**2 <= radius**2).astype(np.float32)
    kernel /= kernel.sum()
    width = 1 if radius <= 8 else 2
    weights = np.exp(-(np.arange(width + 1) ** 2) / (2 * alias_sigma**2))
    weights = (weights / (weights[0] + 2 * weights[1:].sum())).astype(np.float32)
    for _ in range(2):  # along the rows, then along the columns
        wide = np.pad(kernel, ((0, 0), (width, width)), mode="reflect")
        smooth = weights[0] * wide[:, width:-width]
        for distance in range(1, width + 1):
            left, right = wide[:, width - distance :], wide[:, width + distance :]
            smooth = smooth + weights[distance] * (left[:, : len(axis)] + right[:, : len(axis)])
        kernel = smooth.T
    exact = np.round(kernel.astype(np.float64) / GRID) * GRID
    reach = int(np.abs(axis[exact.any(0)]).max())
    return torch.from_numpy(exact[half - reach : half + reach + 1, half - reach : half + reach + 1].copy())


def glass_blur(images: Tensor, draws: Draws, sigma: float, distance: int, rounds: int) -> Tensor:
    """Gaussian blur, ``rounds`` times a local disorder of the pixels, Gaussian blur.

    In a round the pixels are visited from the bottom right to the top left, but for a margin, and each becomes a
    copy of one that is -distance ... distance - 1 rows and columns away, as that is by then. (The reference means to
    swap the two; as NumPy's rows are views, its statement copies. The published sets are made so.)
    """
    x = gaussian(images.double() / 255, sigma).mul_(255).to(torch.uint8)
    height, width = x.shape[2:]
    row = torch.arange(height, device=x.device).view(-1, 1)
    column = torch.arange(width, device=x.device).view(1, -1)
    visited = (
        (row > distance) & (row <= height - distance) & (column > distance) & (column <= width - distance)
    )
    here = row * width + column
    for _ in range(rounds):
        step = draws.integers(2, height, width, low=-distance, high=distance)
        source = torch.where(visited, here + step[:, 1] * width + step[:, 0], here).flatten(1)
        # A source that was visited before is a copy itself: follow such links to their end, twice as far each time.
        before = visited.flatten()[source] & (source > here.flatten())
        link = torch.where(before, source, here.flatten())
        while not torch.equal(further := link.gather(1, link), link):
            link = further
        copied = source.gather(1, link).view(-1, height, width)
        x = pixels_at(x, copied // width, copied % width)
    return gaussian(x.double() / 255, sigma) * 255


def motion_blur(images: Tensor, draws: Draws, radius: int, sigma: float) -> Tensor:
    """One-sided Gaussian blur along a random direction within 45 degrees of the x axis, rounded as by ImageMagick."""
    return motion(images, radius, sigma, draws.uniform(low=-45, high=45)).add_(0.5)


def zoom_blur(images: Tensor, draws: Draws, end: float, step: float) -> Tensor:
    """The mean of the image and of its enlargements by the factors 1, 1 + step, ... up to ``end``."""
    factors = np.arange(1, end, step).tolist()
    x = images.float() / 255
    total = torch.zeros_like(x.transpose(2, 3), memory_format=torch.contiguous_format)
    for factor in factors:
        total += clipped_zoom(x, factor).float()
    return (x + total.transpose(2, 3)) / (len(factors) + 1) * 255
