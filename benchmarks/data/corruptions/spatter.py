"""Spatter of water or mud, with the edge and distance operations that its drops take."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from benchmarks.data.corruptions.draws import Draws
from benchmarks.data.corruptions.filters import gaussian, padded

WATER = (175, 238, 238)
MUD = (63, 42, 20)
FARTHEST = 20  # pixels; distances beyond count as this
CHAMFER = (65536, 91750, 143976)
"""The cost of a straight step, a diagonal one and a knight's move: 1, 1.4 and 2.1969 pixels in units of 2^-16."""


def spatter(
    images: Tensor,
    draws: Draws,
    mean: float,
    std: float,
    sigma: float,
    threshold: float,
    strength: float,
    mud: int,
) -> Tensor:
    """Drops are where smoothed N(mean, std^2) noise is above ``threshold``.

    Water lies over the image with a rim of its own brightness, up to ``strength``; mud covers it, its drops smoothed
    by a Gaussian of ``strength`` pixels.
    """
    height, width = images.shape[2:]
    liquid = gaussian(draws.normal(1, height, width).mul_(std).add_(mean), sigma)
    x = images.float() / 255
    colour = torch.tensor(MUD if mud else WATER, dtype=torch.float64, device=x.device).view(1, 3, 1, 1) / 255
    if mud:
        cover = gaussian((liquid > threshold).float(), strength)
        cover *= cover >= 0.8
        return (x * (1 - cover) + colour * cover) * 255
    drops = (liquid * (liquid >= threshold) * 255).to(torch.uint8)
    light = drops.float() * rim(drops)
    brightest = light.amax((1, 2, 3), keepdim=True)
    light = light / (brightest + (brightest == 0)) * strength  # without a drop all stays as it is
    return (x + light * colour.float()) * 255


def rim(drops: Tensor) -> Tensor:
    """How bright the water is, float32: an embossed picture of the distance to the drops' edges."""
    distance = chamfer_distance(edges(drops)).clamp_(max=FARTHEST)
    distance = (box_sum(distance) * (1 / 9)).to(torch.uint8)
    level = equalised(distance).int()
    wide = padded(padded(level, 2, 1, "mirror"), 3, 1, "mirror")
    height, width = drops.shape[2:]
    emboss = torch.zeros_like(level)
    for row, weights in enumerate(((-2, -1, 0), (-1, 1, 1), (0, 1, 2))):
        for column, weight in enumerate(weights):
            emboss += wide.narrow(2, row, height).narrow(3, column, width) * weight
    return (box_sum(emboss.clamp_(0, 255)) * (1 / 9)).round().float()


def box_sum(x: Tensor) -> Tensor:
    """Sum over 3 x 3 pixels, float64; borders mirrored."""
    for dim in (2, 3):
        size = x.shape[dim]
        wide = padded(x.double(), dim, 1, "mirror")
        x = wide.narrow(dim, 0, size) + wide.narrow(dim, 1, size) + wide.narrow(dim, 2, size)
    return x


def edges(x: Tensor, low: int = 50, high: int = 150) -> Tensor:
    """Canny's edges of uint8 [N, 1, H, W], bool: as OpenCV's, with 3 x 3 Sobel gradients and |dx| + |dy|."""
    height, width = x.shape[2:]
    wide = padded(padded(x.int(), 2, 1, "nearest"), 3, 1, "nearest")
    across = wide.narrow(3, 2, width) - wide.narrow(3, 0, width)
    across = across.narrow(2, 0, height) + 2 * across.narrow(2, 1, height) + across.narrow(2, 2, height)
    down = wide.narrow(2, 2, height) - wide.narrow(2, 0, height)
    down = down.narrow(3, 0, width) + 2 * down.narrow(3, 1, width) + down.narrow(3, 2, width)
    size = across.abs() + down.abs()
    around = torch.nn.functional.pad(size, (1, 1, 1, 1))

    def beside(row: int, column: int) -> Tensor:
        return around.narrow(2, 1 + row, height).narrow(3, 1 + column, width)

    steep = down.abs().long() << 15
    tan22 = across.abs().long() * 13573  # tan(22.5 degrees) in units of 2^-15
    tan67 = tan22 + (across.abs().long() << 16)
    flat = (steep < tan22) & (size > beside(0, -1)) & (size >= beside(0, 1))
    upright = (steep > tan67) & (size > beside(-1, 0)) & (size >= beside(1, 0))
    falling = (size > beside(-1, -1)) & (size > beside(1, 1))
    rising = (size > beside(-1, 1)) & (size > beside(1, -1))
    slanting = (steep >= tan22) & (steep <= tan67) & torch.where((across ^ down) < 0, rising, falling)
    ridge = (size > low) & (flat | upright | slanting)
    found = ridge & (size > high)
    while True:  # weak edges count where they touch strong ones
        more = ridge & _spread(found)
        if torch.equal(more, found):
            return found
        found = more


def _spread(x: Tensor) -> Tensor:
    """True where a pixel or one of its eight neighbours is."""
    for dim in (2, 3):
        size = x.shape[dim]
        wide = torch.nn.functional.pad(x, (0, 0, 1, 1) if dim == 2 else (1, 1))
        x = wide.narrow(dim, 0, size) | wide.narrow(dim, 1, size) | wide.narrow(dim, 2, size)
    return x


def chamfer_distance(edge: Tensor) -> Tensor:
    """Distance to the nearest edge pixel in the steps of ``CHAMFER``, float32, exact up to ``FARTHEST``.

    As OpenCV's distanceTransform with a mask of 5 x 5.
    """
    width = edge.shape[3]
    limit = (FARTHEST + 1) << 16
    distance = torch.where(edge, 0, limit).int()
    while True:
        wide = torch.nn.functional.pad(distance, (2, 2, 2, 2), value=limit)
        middle = wide.narrow(3, 2, width)
        one, two = (  # the nearer of the two so many columns away
            torch.minimum(wide.narrow(3, 2 - step, width), wide.narrow(3, 2 + step, width)) for step in (1, 2)
        )
        straight = reduce(torch.minimum, (one[:, :, 2:-2], middle[:, :, 1:-3], middle[:, :, 3:-1]))
        diagonal = torch.minimum(one[:, :, 1:-3], one[:, :, 3:-1])
        knight = reduce(torch.minimum, (one[:, :, :-4], one[:, :, 4:], two[:, :, 1:-3], two[:, :, 3:-1]))
        steps = zip((straight, diagonal, knight), CHAMFER, strict=True)
        nearer = reduce(torch.minimum, (beside + cost for beside, cost in steps), distance)
        if torch.equal(nearer, distance):
            return distance.float() / 65536
        distance = nearer


def equalised(x: Tensor) -> Tensor:
    """uint8 [N, 1, H, W] with its histogram spread evenly over 0..255, as OpenCV's equalizeHist."""
    flat = x.flatten(1).long()
    counts = torch.zeros(len(x), 256, dtype=torch.int64, device=x.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat))
    first = (counts > 0).int().argmax(1, keepdim=True)
    rest = flat.shape[1] - counts.gather(1, first)
    scale = 255.0 / rest.clamp(min=1).float()
    above = counts.cumsum(1) - counts.gather(1, first)
    table = (above.float() * scale).round().clamp_(0, 255)
    table = torch.where(rest == 0, first.float(), table)  # a plain image stays as it is
    return table.gather(1, flat).to(torch.uint8).view(x.shape)
