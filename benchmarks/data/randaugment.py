"""RandAugment (Cubuk et al., arXiv 1909.13719) on batches of uint8 images: every image gets operations of its own.

``torchvision``: the 14 operations of torchvision's RandAugment with its 31 magnitudes; what an image loses is black.

``official``: what the DAMP authors train with, TensorFlow's model garden (official/vision/ops/augment.py) at its
constants cutout 40 and translation 100: 16 operations and the identity, 11 magnitudes, fill 128. Its magnitude 10 is
the end of the scale, as torchvision's 30 is. Colour operations only ever strengthen above magnitude 5; solarize does
nothing at 10 (its threshold is 256); contrast blends with the number of pixels / 256 in place of their mean.

An operation is a function of (images [n, C, H, W], magnitudes [n]); an image's result does not depend on the others.
For the operations of both, and for one image, they are torchvision's results on tensors, bit for bit.

Nothing here waits for a GPU: what is drawn, which images an operation gets and its matrices are known on the CPU and
are sent from there; no value comes back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from weightaug.transfer import send

Operation = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Choice:
    """One of the operations that are drawn from. Half of the signed ones' magnitudes are negated."""

    name: str
    magnitude: float = 0.0
    signed: bool = False


@cache
def choices(kind: str, magnitude: int, height: int, width: int) -> tuple[Choice, ...]:
    """What ``torchvision`` or ``official`` draws from, evenly, at a magnitude and an image size."""
    if kind == "torchvision":

        def level(last: float, first: float = 0.0) -> float:
            return float(torch.linspace(first, last, 31)[magnitude])

        return (
            Choice("identity"),
            Choice("shear_x", level(0.3), signed=True),
            Choice("shear_y", level(0.3), signed=True),
            Choice("translate_x", int(level(150 / 331 * width)), signed=True),
            Choice("translate_y", int(level(150 / 331 * height)), signed=True),
            Choice("rotate", level(30), signed=True),
            Choice("brightness", level(0.9), signed=True),
            Choice("color", level(0.9), signed=True),
            Choice("contrast", level(0.9), signed=True),
            Choice("sharpness", level(0.9), signed=True),
            Choice("posterize", 8 - round(magnitude / 7.5)),
            Choice("solarize", level(0, first=255)),
            Choice("autocontrast"),
            Choice("equalize"),
        )
    share = magnitude / 10
    enhance = 1.8 * share - 0.9  # the factor is 1 + this
    return (
        Choice("identity"),
        Choice("autocontrast"),
        Choice("equalize"),
        Choice("invert"),
        Choice("rotate", 30 * share, signed=True),
        Choice("posterize", int(4 * share)),
        Choice("solarize", int(256 * share)),
        Choice("color", enhance),
        Choice("contrast_to_count", enhance),
        Choice("brightness", enhance),
        Choice("sharpness", enhance),
        Choice("shear_x", 0.3 * share, signed=True),
        Choice("shear_y", 0.3 * share, signed=True),
        Choice("translate_x", 100 * share, signed=True),
        Choice("translate_y", 100 * share, signed=True),
        Choice("cutout", int(40 * share)),
        Choice("solarize_add", int(110 * share)),
    )


FILLS = {"torchvision": 0, "official": 128}


class RandAugment:
    """One epoch's draws for ``examples`` images, and their application to a batch."""

    def __init__(self, kind: str, layers: int, magnitude: int, examples: int, generator: Generator) -> None:
        self.kind, self.magnitude = kind, magnitude
        count = len(choices(kind, magnitude, 1, 1))
        self.drawn = torch.randint(count, (examples, layers), generator=generator)
        self.signs = 1 - 2 * torch.randint(2, (examples, layers), generator=generator)
        self.places = torch.rand(examples, layers, 2, generator=generator)

    def __call__(self, images: Tensor, examples: Tensor) -> Tensor:
        """``images`` [n, C, H, W] with the operations that were drawn for ``examples`` [n], on the CPU."""
        images = images.clone()
        drawn_from = choices(self.kind, self.magnitude, images.shape[2], images.shape[3])
        for layer in range(self.drawn.shape[1]):
            drawn, signs, places = (of[examples, layer] for of in (self.drawn, self.signs, self.places))
            for number in drawn.unique().tolist():
                choice = drawn_from[number]
                if choice.name != "identity":
                    here = (drawn == number).nonzero().squeeze(1)
                    there = send(here, images.device)
                    magnitudes = choice.magnitude * (signs[here] if choice.signed else torch.ones(len(here)))
                    images[there] = apply(
                        choice.name, images[there], magnitudes, FILLS[self.kind], places[here]
                    )
        return images


def apply(
    name: str, images: Tensor, magnitudes: Tensor, fill: int = 0, places: Tensor | None = None
) -> Tensor:
    """One operation on uint8 images [n, C, H, W].

    Args:
        magnitudes: [n] on the CPU. Shears: tangent; translations: whole pixels; rotate: degrees, counter-clockwise;
            colour operations: the blending factor less 1; posterize: bits that are kept; solarize: threshold;
            cutout: half the side in pixels; solarize_add: what is added to values below 128. The others have none.
        fill: what comes in from outside the image.
        places: cutout's centres [n, 2] as shares of height and width.
    """
    if name in MATRICES:
        return _warp(name, images, magnitudes, fill)
    if name == "cutout":
        assert places is not None
        return _cutout(images, magnitudes, fill, places)
    return OPERATIONS[name](images, send(magnitudes, images.device).view(-1, 1, 1, 1))


MATRICES: dict[str, Callable[[float, int, int], Sequence[float]]] = {
    "shear_x": lambda m, height, width: (1, m, m * height / 2, 0, 1, 0),
    "shear_y": lambda m, height, width: (1, 0, 0, m, 1, m * width / 2),
    "translate_x": lambda m, height, width: (1, 0, -m, 0, 1, 0),
    "translate_y": lambda m, height, width: (1, 0, 0, 0, 1, -m),
    "rotate": lambda m, height, width: (*_turn(-m), 0, *_turn(90 - m), 0),
}
"""From a place in the new image to that in the old one, in pixels from the centre: rows of (x, y, 1)."""


def _turn(degrees: float) -> tuple[float, float]:
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))


def _warp(name: str, images: Tensor, magnitudes: Tensor, fill: int) -> Tensor:
    """Nearest pixel of an affine map about the centre."""
    count, _, height, width = images.shape
    device = images.device
    rows = [MATRICES[name](m, height, width) for m in magnitudes.tolist()]
    matrix = torch.tensor(rows).view(count, 2, 3).transpose(1, 2)
    scaled = send(matrix / torch.tensor([0.5 * width, 0.5 * height]), device)
    grid = torch.ones(1, height, width, 3, device=device)
    grid[..., 0] = torch.linspace(0.5 - width / 2, width / 2 - 0.5, width, device=device)
    grid[..., 1] = torch.linspace(0.5 - height / 2, height / 2 - 0.5, height, device=device).unsqueeze(1)
    where = grid.view(1, -1, 3).expand(count, -1, -1).bmm(scaled).view(count, height, width, 2)
    inside = torch.ones(count, 1, height, width, device=device)
    warped = F.grid_sample(
        torch.cat([images.float(), inside], 1),
        where,
        mode="nearest",
        padding_mode="zeros",
        align_corners=False,
    )
    return torch.where(warped[:, -1:] < 0.5, fill, warped[:, :-1]).round().to(torch.uint8)


def _cutout(images: Tensor, half: Tensor, fill: int, places: Tensor) -> Tensor:
    """A square of side 2 * half, centred on a pixel, is filled; what juts out of the image is lost."""
    keep = torch.zeros(images.shape[0], 1, 1, 1, dtype=torch.bool, device=images.device)
    for axis, size in ((2, images.shape[2]), (3, images.shape[3])):
        centre = (places[:, axis - 2] * size).long().clamp(max=size - 1)
        grid = torch.arange(size)
        outside = (grid < (centre - half.long()).unsqueeze(1)) | (grid >= (centre + half.long()).unsqueeze(1))
        shape = (-1, 1, size, 1) if axis == 2 else (-1, 1, 1, size)
        keep = keep | send(outside, images.device).view(shape)
    return torch.where(keep, images, torch.full_like(images, fill))


def _grey(images: Tensor) -> Tensor:
    """Luminance, rounded down, [n, 1, H, W]."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).to(torch.uint8).unsqueeze(1)


def _blend(images: Tensor, other: Tensor, more: Tensor) -> Tensor:
    """``(1 + more) images - more other``, rounded down."""
    factor = 1.0 + more.double()  # torchvision's factors are Python numbers
    first, second = factor.float(), (1.0 - factor).float()
    return (first * images + second * other).clamp(0, 255).to(torch.uint8)


def _color(images: Tensor, more: Tensor) -> Tensor:
    return images if images.shape[1] == 1 else _blend(images, _grey(images), more)


def _contrast(images: Tensor, more: Tensor) -> Tensor:
    return _blend(images, _grey(images).float().mean((1, 2, 3), keepdim=True), more)


def _contrast_to_count(images: Tensor, more: Tensor) -> Tensor:
    count = min(255, images.shape[2] * images.shape[3] // 256)
    return _blend(images, torch.full_like(images, count), more)


def _sharpness(images: Tensor, more: Tensor) -> Tensor:
    channels, height, width = images.shape[1:]
    if height <= 2 or width <= 2:
        return images
    kernel = torch.ones(3, 3, device=images.device)
    kernel[1, 1] = 5.0
    kernel = (kernel / kernel.sum()).expand(channels, 1, 3, 3)
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = F.conv2d(images.float(), kernel, groups=channels).round().to(torch.uint8)
    return _blend(images, smooth, more)


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    return images & (256 - 2 ** (8 - bits.long())).to(torch.uint8)


def _solarize(images: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(images >= threshold, 255 - images, images)


def _solarize_add(images: Tensor, addition: Tensor) -> Tensor:
    raised = (images.short() + addition.short()).clamp(0, 255).to(torch.uint8)
    return torch.where(images < 128, raised, images)


def _autocontrast(images: Tensor, _: Tensor) -> Tensor:
    least = images.amin((2, 3), keepdim=True).float()
    scale = 255 / (images.amax((2, 3), keepdim=True).float() - least)
    flat = scale.isinf()  # one value only: left as it is
    least, scale = least.masked_fill(flat, 0), scale.masked_fill(flat, 1)
    return ((images - least) * scale).clamp(0, 255).to(torch.uint8)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    count, channels, height, width = images.shape
    values = images.long().reshape(count * channels, height * width)
    histogram = torch.zeros(count * channels, 256, dtype=torch.long, device=images.device)
    histogram.scatter_add_(1, values, torch.ones_like(values))
    brightest = histogram.gather(1, values.amax(1, keepdim=True))
    step = (height * width - brightest) // 255
    table = (histogram.cumsum(1) + step // 2) // step.clamp(min=1)
    table = F.pad(table, (1, 0))[:, :-1].clamp(0, 255)
    equalized = torch.where(step == 0, values, table.gather(1, values))
    return equalized.to(torch.uint8).view(images.shape)


OPERATIONS: dict[str, Operation] = {
    "brightness": lambda images, more: _blend(images, torch.zeros_like(images), more),
    "color": _color,
    "contrast": _contrast,
    "contrast_to_count": _contrast_to_count,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "invert": lambda images, _: 255 - images,
}
