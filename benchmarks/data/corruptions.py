"""Image corruptions at five severities, as batched functions of uint8 images.

The formulas are those of Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (2019); what each severity means is data, in the data set's config, as it depends on the image size.
Each function takes images [N, C, H, W] on the pixel scale 0..1, a severity's parameter and a generator on the CPU
(so that all devices see the same noise), and returns images of the same scale, not yet clipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from benchmarks.errors import UserError, unknown_name
from weightaug.random import derive_seed

SEVERITIES = (1, 2, 3, 4, 5)
Corruption = Callable[[Tensor, float, Generator], Tensor]


def gaussian_noise(x: Tensor, scale: float, generator: Generator) -> Tensor:
    """x + N(0, scale^2)."""
    return x + scale * torch.randn(x.shape, generator=generator).to(x.device)


def shot_noise(x: Tensor, photons: float, generator: Generator) -> Tensor:
    """Poisson(photons * x) / photons: fewer photons, more noise."""
    return torch.poisson(x.cpu() * photons, generator=generator).to(x.device) / photons


def impulse_noise(x: Tensor, amount: float, generator: Generator) -> Tensor:
    """A share ``amount`` of all values becomes 0 or 1, either with the same probability."""
    draw = torch.rand(x.shape, generator=generator).to(x.device)
    x = torch.where(draw < amount / 2, torch.zeros_like(x), x)
    return torch.where(draw > 1 - amount / 2, torch.ones_like(x), x)


def gaussian_blur(x: Tensor, sigma: float, generator: Generator) -> Tensor:
    """Convolution with a Gaussian of standard deviation ``sigma`` pixels, cut off at 4 sigma, borders repeated."""
    radius = max(1, math.ceil(4 * sigma))
    grid = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (grid / sigma) ** 2)
    kernel = kernel / kernel.sum()
    channels = x.shape[1]
    for shape, padding in (((1, -1), (radius, radius, 0, 0)), ((-1, 1), (0, 0, radius, radius))):
        weight = kernel.view(1, 1, *shape).expand(channels, -1, -1, -1)
        x = F.conv2d(F.pad(x, padding, mode="replicate"), weight, groups=channels)
    return x


def brightness(x: Tensor, amount: float, generator: Generator) -> Tensor:
    """The value of HSV is raised by ``amount`` at unchanged hue and saturation."""
    value = x.amax(1, keepdim=True)
    raised = (value + amount).clamp(max=1)
    return torch.where(value > 0, x * raised / value.clamp(min=1e-12), raised.expand_as(x))


def contrast(x: Tensor, factor: float, generator: Generator) -> Tensor:
    """The distance of each value to its channel's mean is multiplied by ``factor``."""
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


def pixelate(x: Tensor, factor: float, generator: Generator) -> Tensor:
    """Area-averaged down to ``factor`` of the size, then enlarged again by repeating pixels."""
    height, width = x.shape[2:]
    small = F.interpolate(x, (max(1, int(height * factor)), max(1, int(width * factor))), mode="area")
    return F.interpolate(small, (height, width), mode="nearest")


CORRUPTIONS: dict[str, Corruption] = {
    function.__name__: function
    for function in (gaussian_noise, shot_noise, impulse_noise, gaussian_blur, brightness, contrast, pixelate)
}


def check_severities(table: dict[str, list[float]]) -> dict[str, list[float]]:
    """The parameter table of a data set, or an error that names the entry which can't be used."""
    for name, values in table.items():
        if name not in CORRUPTIONS:
            raise unknown_name("corruption", name, CORRUPTIONS)
        if len(values) != len(SEVERITIES):
            raise UserError(
                f"corruption {name!r} needs {len(SEVERITIES)} parameters, one a severity, not {len(values)}"
            )
    return table


def corrupt(images: Tensor, name: str, severity: int, parameter: float) -> Tensor:
    """uint8 [N, C, H, W] with one corruption: a function of (images, name, severity), always the same."""
    generator = torch.Generator().manual_seed(derive_seed("corruption", name, severity))
    return corrupt_with(images, name, parameter, generator)


def corrupt_with(images: Tensor, name: str, parameter: float, generator: Generator) -> Tensor:
    """uint8 [N, C, H, W] with one corruption, its randomness from ``generator``, on the CPU."""
    corrupted = CORRUPTIONS[name](images.float() / 255, parameter, generator)
    return (corrupted.clamp(0, 1) * 255).round().to(torch.uint8)
