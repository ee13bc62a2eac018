"""Batched image filters that the corruptions are made of.

They work pixel by pixel with sums in a fixed order, never with a convolution or a matrix product of a library, which
may choose its order by the size of the batch: so an image's result does not depend on the others in its batch. The
order is that of the reference's filters (SciPy, OpenCV), so that results are equal to it to the last bit where they
can be.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor


def padded(x: Tensor, dim: int, radius: int | tuple[int, int], border: str) -> Tensor:
    """``x`` with ``radius`` more positions at both ends of ``dim``, or so many before and so many after.

    ``border``: ``nearest`` = the last value is repeated (aaa|abc|ccc), ``symmetric`` = mirrored about the edge
    (cba|abc|cba), ``mirror`` = mirrored about the last value (dcb|abcd|cba).
    """
    before, after = radius if isinstance(radius, tuple) else (radius, radius)
    positions = torch.arange(-before, x.shape[dim] + after, device=x.device)
    return x.index_select(dim, reflected(positions, x.shape[dim], border))


def reflected(positions: Tensor, size: int, border: str) -> Tensor:
    """Where in 0 ... size - 1 a position outside lies; see :func:`padded`."""
    if border == "nearest" or size == 1:
        return positions.clamp(0, size - 1)
    period = 2 * size if border == "symmetric" else 2 * size - 2
    turns = (
        positions.double().div_(period).floor_().long()
    )  # much quicker than the remainder of whole numbers
    positions = positions - turns * period
    return torch.minimum(positions, period - int(border == "symmetric") - positions)


@cache
def gaussian_weights(sigma: float, truncate: float) -> list[float]:
    """Weights at the distances 0 ... radius, as SciPy's gaussian_filter has them."""
    radius = int(truncate * sigma + 0.5)
    grid = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 / (sigma * sigma) * grid**2)
    return (weights / weights.sum())[radius:].tolist()


def gaussian(x: Tensor, sigma: float, border: str = "nearest", truncate: float = 4.0) -> Tensor:
    """Convolution of the last two dimensions of ``x`` [N, C, H, W] with a Gaussian of ``sigma`` pixels."""
    if sigma < 1e-15:
        return x
    weights = gaussian_weights(sigma, truncate)
    radius = len(weights) - 1
    for dim in (2, 3):
        size = x.shape[dim]
        wide = padded(x.double(), dim, radius, border)
        total = wide.narrow(dim, radius, size) * weights[0]
        for distance in range(radius, 0, -1):  # SciPy adds the outermost first
            pair = wide.narrow(dim, radius - distance, size) + wide.narrow(dim, radius + distance, size)
            total += pair.mul_(weights[distance])
        x = total.to(x.dtype)
    return x


def smooth_field(x: Tensor, sigma: float, truncate: float) -> Tensor:
    """As :func:`gaussian` with the border ``symmetric``, by matrix products: quick for a ``sigma`` of any size.

    Their last bits may depend on the batch, so this is for fields of random numbers alone, where no value is by
    design on the edge between two results, as those of plain areas of an image are.
    """
    if sigma < 1e-15:
        return x
    rows, columns = (_smoothing(size, sigma, truncate).to(x.device) for size in x.shape[2:])
    return rows @ x @ columns.T


@cache
def _smoothing(size: int, sigma: float, truncate: float) -> Tensor:
    weights = gaussian_weights(sigma, truncate)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    place = torch.arange(size)
    for distance in range(1 - len(weights), len(weights)):
        source = reflected(place + distance, size, "symmetric").view(-1, 1)
        matrix.scatter_add_(1, source, torch.full((size, 1), weights[abs(distance)], dtype=torch.float64))
    return matrix


@cache
def _zoom_places(size: int, factor: float, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For ``size`` positions of the middle, enlarged by ``factor``: lower and upper source and their shares."""
    part = math.ceil(size / factor)
    enlarged = round(part * factor)
    place = torch.arange(enlarged, dtype=torch.float64) * ((part - 1) / max(enlarged - 1, 1))
    place = place[(enlarged - size) // 2 :][:size]
    lower = place.floor()
    share = (place - lower).view(-1, 1).to(device)
    lower = lower.long().clamp(max=part - 1).to(device)
    upper = (lower + 1).clamp(max=part - 1)
    start = (size - part) // 2
    return start + lower, start + upper, 1 - share, share


def clipped_zoom(x: Tensor, factor: float) -> Tensor:
    """The middle of the images of ``x`` [N, C, H, W], enlarged by ``factor`` to fill them; float64.

    Linear interpolation that keeps the first and the last value. The result is [N, C, W, H], transposed: columns are
    interpolated as the rows of the transposed images, which is much quicker.
    """
    x = x.double()
    for turn in range(2):
        lower, upper, rest, share = _zoom_places(x.shape[2], factor, x.device)
        enlarged = x.index_select(2, lower).mul_(rest).add_(x.index_select(2, upper).mul_(share))
        x = enlarged.transpose(2, 3).contiguous() if turn == 0 else enlarged
    return x


def motion(x: Tensor, radius: int, sigma: float, degrees: Tensor) -> Tensor:
    """Blur along a line: each image's own direction, ``degrees`` [N] from the x axis; float64, on the scale of ``x``.

    One-sided: a pixel gets the Gaussian-weighted mean of itself and 2 * ``radius`` pixels in one direction, each
    at the nearest whole position; the border is repeated. This is ImageMagick's motion blur.
    """
    height, width = x.shape[2:]
    taps = torch.arange(2 * radius + 1, dtype=torch.float64, device=x.device)
    weights = torch.exp(-(taps**2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)
    weights /= weights.sum()
    angle = torch.deg2rad(degrees.double()).unsqueeze(1)
    along = torch.stack((len(taps) * angle.sin(), len(taps) * angle.cos()))
    steps = torch.ceil(taps * along / torch.hypot(along[0], along[1]) - 0.5).long()  # [2, N, taps]
    wide, corners = x, []
    for dim, step in zip((2, 3), steps, strict=True):
        step = step.clamp(1 - x.shape[dim], x.shape[dim] - 1)  # farther off there is but the border
        before, after = max(0, -int(step.min())), max(0, int(step.max()))
        wide = padded(wide, dim, (before, after), "nearest")
        corners.append(step + before)
    everywhere = wide.double().unfold(2, height, 1).unfold(3, width, 1)
    number = torch.arange(len(x), device=x.device)
    top, left = corners
    blurred = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
    for tap, weight in enumerate(weights.tolist()):
        blurred += everywhere[number, :, top[:, tap], left[:, tap]].mul_(weight)
    return blurred


def pixels_at(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """The values of ``x`` [N, C, H, W] at the whole positions (row, column) [N, h, w], as [N, C, h, w]."""
    positions = (row * x.shape[3] + column).flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, positions).view(*x.shape[:2], *row.shape[1:])


def bilinear(x: Tensor, row: Tensor, column: Tensor, border: str) -> Tensor:
    """The values of ``x`` [N, C, H, W] at the places (row, column) [N, H, W], in their type.

    ``border``: as in :func:`padded`, or ``black``.
    """
    top, left = row.floor(), column.floor()
    down, across = row - top, column - left
    rows, columns = [(top.long() + step) for step in (0, 1)], [(left.long() + step) for step in (0, 1)]
    weights = [[1 - down, down], [1 - across, across]]
    for places, shares, size in ((rows, weights[0], x.shape[2]), (columns, weights[1], x.shape[3])):
        for step in (0, 1):
            if border == "black":
                shares[step] = shares[step] * ((places[step] >= 0) & (places[step] < size))
            places[step] = reflected(places[step], size, "nearest" if border == "black" else border)
    total = torch.zeros(*x.shape[:2], *row.shape[1:], dtype=row.dtype, device=x.device)
    for r, down in zip(rows, weights[0], strict=True):
        for c, across in zip(columns, weights[1], strict=True):
            total += pixels_at(x, r, c).to(row.dtype).mul_((down * across).unsqueeze(1))
    return total


def grid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Row [H, 1] and column [1, W] of every pixel of ``x``, float64."""
    height, width = x.shape[-2:]
    rows = torch.arange(height, dtype=torch.float64, device=x.device).view(-1, 1)
    return rows, torch.arange(width, dtype=torch.float64, device=x.device).view(1, -1)
