"""Digital: brightness, contrast, saturation, elastic deformation, coarse pixels and JPEG."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

from benchmarks.data.corruptions.draws import Draws
from benchmarks.data.corruptions.filters import bilinear, grid, smooth_field


def brightness(images: Tensor, draws: Draws, amount: float) -> Tensor:
    """The value of HSV is raised by ``amount`` at unchanged hue and saturation."""
    x = images.double() / 255
    if x.shape[1] == 1:
        return (x + amount) * 255
    hue, saturation, value = to_hsv(x)
    return from_hsv(hue, saturation, (value + amount).clamp_(0, 1)) * 255


def contrast(images: Tensor, draws: Draws, factor: float) -> Tensor:
    """The distance of each value to its channel's mean is multiplied by ``factor``."""
    x = images.double() / 255
    mean = images.long().sum((2, 3), keepdim=True).double() / (images.shape[2] * images.shape[3] * 255)
    return ((x - mean) * factor + mean) * 255


def saturate(images: Tensor, draws: Draws, factor: float, offset: float) -> Tensor:
    """The saturation of HSV becomes factor * saturation + offset."""
    hue, saturation, value = to_hsv(images.double() / 255)
    return from_hsv(hue, (saturation * factor + offset).clamp_(0, 1), value) * 255


def to_hsv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation and value, each [N, H, W] on 0..1, of RGB [N, 3, H, W]."""
    red, green, blue = x.unbind(1)
    value, which = x.max(1)
    spread = value - x.amin(1)
    plain = spread == 0
    divisor = spread + plain  # 1 where it is 0
    # Of equal channels the last decides, as in the reference.
    which = torch.where(blue == value, 2, torch.where(green == value, 1, 0))
    others = torch.stack((green - blue, blue - red, red - green), 1)
    hue = others.gather(1, which.unsqueeze(1)).squeeze(1) / divisor + 2 * which
    hue = (hue / 6).remainder(1).masked_fill(plain, 0)
    return hue, (spread / (value + (value == 0))).masked_fill(plain, 0), value


def from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """RGB [N, 3, H, W] of hue, saturation and value, each [N, H, W] on 0..1."""
    sixth = (hue * 6).floor()
    share = hue * 6 - sixth
    low = value * (1 - saturation)
    falling = value * (1 - share * saturation)
    rising = value * (1 - (1 - share) * saturation)
    levels = torch.stack((value, rising, low, falling), 1)
    order = torch.tensor([[0, 3, 2, 2, 1, 0], [1, 0, 0, 3, 2, 2], [2, 2, 1, 0, 0, 3]], device=hue.device)
    return levels.gather(1, order[:, sixth.long() % 6].transpose(0, 1))


def elastic_transform(images: Tensor, draws: Draws, alpha: float, sigma: float, affine: float) -> Tensor:
    """A random affine map, then a smooth random displacement of each pixel.

    The affine map takes three corners of a square around the middle to places up to ``affine`` pixels away. The
    displacements are U(-1, 1), smoothed by a Gaussian of ``sigma`` pixels, times ``alpha``.
    """
    x = _affine(images.float() / 255, draws.uniform(3, 2, low=-affine, high=affine))
    height, width = x.shape[2:]
    noise = (draws.uniform(1, height, width, low=-1, high=1) for _ in range(2))
    moves = [(smooth_field(field, sigma, 3.0) * alpha).float() for field in noise]
    rows, columns = grid(x)
    row, column = rows + moves[1].squeeze(1).double(), columns + moves[0].squeeze(1).double()
    return bilinear(x, row, column, "symmetric").float() * 255


def _affine(x: Tensor, moves: Tensor) -> Tensor:
    """Each image moved by the affine map that takes three points to ``moves`` [N, 3, 2] beside them; borders mirrored.

    As OpenCV's warpAffine: positions in the source are rounded to 1/32 pixel.
    """
    height, width = x.shape[2:]
    middle = torch.tensor([height // 2, width // 2], dtype=torch.float32)
    arm = max(min(height, width) // 3, 1)
    points = torch.stack((middle + arm, middle + torch.tensor([arm, -arm]), middle - arm)).to(x.device)
    moved = (points + moves.float()).double()
    basis = torch.linalg.inv(torch.cat((points.double(), torch.ones(3, 1, device=x.device)), 1))
    a, b, c, d, e, f = (basis @ moved).transpose(1, 2).flatten(1).view(-1, 6, 1, 1).unbind(1)
    scale = 1 / (a * e - b * d)
    a, b, d, e = e * scale, -b * scale, -d * scale, a * scale
    c, f = -a * c - b * f, -d * c - e * f
    row, column = grid(x)

    def thirty_seconds(across: Tensor, down: Tensor, offset: Tensor) -> Tensor:
        steps = (across * column * 1024).round() + ((down * row + offset) * 1024).round()
        return ((steps + 16) / 32).floor().float() / 32

    return bilinear(x, thirty_seconds(d, e, f), thirty_seconds(a, b, c), "mirror")


def pixelate(images: Tensor, draws: Draws, factor: float) -> Tensor:
    """Shrunk to ``factor`` of the size by means of whole pixels, then enlarged again by repeating pixels.

    As Pillow's BOX filter: a pixel of the small image is the mean of the pixels whose middle it covers; rows, then
    columns, each rounded to 8 bits.
    """
    x = images
    for dim in (3, 2):
        x = _box(x, dim, max(1, int(images.shape[dim] * factor)))
    for dim in (3, 2):
        x = _box(x, dim, images.shape[dim])
    return x


def _box(x: Tensor, dim: int, target: int) -> Tensor:
    """uint8 images with ``dim`` resized to ``target``, as Pillow's resize with the BOX filter."""
    first, weights = _box_weights(x.shape[dim], target)
    shape = (-1, *[1] * (3 - dim))
    total = torch.full((), 1 << 21, dtype=torch.int32, device=x.device)
    for tap, weight in enumerate(weights):
        part = x.index_select(dim, (first + tap).clamp(max=x.shape[dim] - 1).to(x.device))
        total = total + part.int() * weight.to(x.device).view(shape)
    return (total >> 22).clamp_(0, 255).to(torch.uint8)


@cache
def _box_weights(size: int, target: int) -> tuple[Tensor, list[Tensor]]:
    """The first source of every target, and for each further tap the weights in units of 2^-22, int32."""
    scale = size / target
    stretch = max(scale, 1.0)
    support = 0.5 * stretch
    firsts, rows = [], []
    for place in range(target):
        middle = (place + 0.5) * scale
        first = max(int(middle - support + 0.5), 0)
        last = min(int(middle + support + 0.5), size)
        inside = [-0.5 < (source - middle + 0.5) / stretch <= 0.5 for source in range(first, last)]
        weight = int(0.5 + (1 / max(sum(inside), 1)) * (1 << 22))
        firsts.append(first)
        rows.append([weight * covered for covered in inside])
    taps = max(map(len, rows))
    table = torch.tensor([row + [0] * (taps - len(row)) for row in rows], dtype=torch.int32)
    return torch.tensor(firsts), list(table.unbind(1))


def jpeg_compression(images: Tensor, draws: Draws, quality: int) -> Tensor:
    """Stored as JPEG of this quality and read again, by the real codec, on the CPU in threads."""
    from PIL import Image

    def through(pixels: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    pixels = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    stored = np.stack(list(_threads().map(through, pixels)))
    return torch.from_numpy(stored).permute(0, 3, 1, 2).to(images.device)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="jpeg")
