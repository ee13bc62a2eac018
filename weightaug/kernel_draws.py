"""Outcomes of the kernel transforms of WAS (arXiv 2405.19590), and how they are applied to a weight.

Every transform of the paper moves or blends the taps of a kernel, so it is a linear map of its k_h x k_w
taps: ``T(W)[o, c] = M W[o, c]`` with one small matrix M per draw. A draw is plain data that knows its matrix.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

Size = tuple[int, int]
"""Height and width of a kernel in taps. A kernel of Conv1d has height 1."""

Rows = list[list[float]]


class Draw(Hashable, Protocol):
    """One outcome of a random transform, to be applied to every kernel of a layer."""

    def matrix(self, size: Size) -> Rows:
        """M [taps, taps], taps in row-major order: output tap i is ``sum_j M[i][j] W_j``."""


@dataclass(frozen=True)
class Shift:
    """T1's outcome, in taps to the right and down: ``T(W)[y, x] = W[y - dy, x - dx]``, zero outside."""

    dx: int
    dy: int

    def matrix(self, size: Size) -> Rows:
        return _nearest(size, lambda y, x: (y - self.dy, x - self.dx))


@dataclass(frozen=True)
class Crop:
    """T2's outcome: the window ``height`` x ``width`` at (top, left), stretched bilinearly to full size."""

    top: int
    left: int
    height: int
    width: int

    def matrix(self, size: Size) -> Rows:
        down = _stretch(self.top, self.height, size[0])
        across = _stretch(self.left, self.width, size[1])
        return [[a * b for a in row for b in column] for row in down for column in across]


@dataclass(frozen=True)
class Flip:
    """Mirror the columns (``horizontal``) and/or the rows (``vertical``) of a kernel."""

    horizontal: bool = False
    vertical: bool = False

    def matrix(self, size: Size) -> Rows:
        height, width = size
        return _nearest(
            size,
            lambda y, x: (height - 1 - y if self.vertical else y, width - 1 - x if self.horizontal else x),
        )


@dataclass(frozen=True)
class Affine:
    """Rotation, shear and scale about the kernel's centre, nearest tap, zero outside.

    Args:
        angle: counter-clockwise rotation in degrees.
        shear: in degrees: output row y (measured down from the centre) takes its taps from ``x + tan(shear)
            y``.
        scale: enlargement factor; 3 spreads the centre tap over all of a 3x3 kernel.
    """

    angle: float = 0.0
    shear: float = 0.0
    scale: float = 1.0

    def matrix(self, size: Size) -> Rows:
        middle_y, middle_x = (size[0] - 1) / 2, (size[1] - 1) / 2
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        tan = math.tan(math.radians(self.shear))

        def source(y: int, x: int) -> tuple[int, int]:
            # sin and cos of a right angle are off in the last digit: cut it, or ties would fall at random.
            v, u = (y - middle_y) / self.scale, (x - middle_x) / self.scale
            v, u = v * cos + u * sin, u * cos - v * sin
            return round(round(v + middle_y, 9)), round(round(u + v * tan + middle_x, 9))

        return _nearest(size, source)


@dataclass(frozen=True)
class Custom:
    """A user's ``function(weight, generator)``, to be called with a CPU generator seeded with ``seed``."""

    function: Callable[[Tensor, torch.Generator], Tensor]
    seed: int

    def __call__(self, weight: Tensor) -> Tensor:
        result = self.function(weight, torch.Generator().manual_seed(self.seed))
        if result.shape != weight.shape:
            raise ValueError(
                f"the kernel transform returned shape {tuple(result.shape)} for a weight of shape "
                f"{tuple(weight.shape)}; it must keep the shape"
            )
        return result


LayerDraw = Draw | Custom | tuple[Draw | Custom, ...]
"""What is drawn for one layer: one outcome for all its kernels, or one for each."""


def _nearest(size: Size, source: Callable[[int, int], tuple[int, int]]) -> Rows:
    """The matrix that fills tap (y, x) with tap ``source(y, x)``, or with zero where that is outside."""
    taps = list(itertools.product(range(size[0]), range(size[1])))
    sources = [source(y, x) for y, x in taps]
    return [[float(origin == tap) for tap in taps] for origin in sources]


def _stretch(start: int, length: int, size: int) -> Rows:
    """Bilinear resampling [size, size] of the window from ``start`` to ``size`` points, edges repeated."""
    rows = []
    for i in range(size):
        position = min(max((i + 0.5) * length / size - 0.5, 0.0), length - 1.0)
        low = min(int(position), length - 1)
        row = [0.0] * size
        row[start + low] += 1 - (position - low)
        if position > low:
            row[start + low + 1] += position - low
        rows.append(row)
    return rows


@lru_cache(maxsize=4096)
def _matrix(draw: Draw, size: Size, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The draw's matrix as a tensor, kept so that later steps copy nothing to the device."""
    with torch.inference_mode(False):
        return torch.tensor(draw.matrix(size), dtype=dtype, device=device)


@lru_cache(maxsize=4096)
def _is_identity(draw: Draw, size: Size) -> bool:
    return all(value == (i == j) for i, row in enumerate(draw.matrix(size)) for j, value in enumerate(row))


@lru_cache(maxsize=4096)
def _support(draw: Draw, size: Size) -> tuple[range, range]:
    kept = [divmod(tap, size[1]) for tap, row in enumerate(draw.matrix(size)) if any(row)] or [(0, 0)]
    rows, columns = ({y for y, _ in kept}, {x for _, x in kept})
    return range(min(rows), max(rows) + 1), range(min(columns), max(columns) + 1)


def support(draw: LayerDraw, size: Size) -> tuple[range, range]:
    """The rows and the columns of the smallest window of taps outside of which T(W) is zero for every W.

    All of the kernel where a user's function makes T; the first tap where nothing at all is left.

    Args:
        draw: one draw for all kernels, or a tuple of draws, whose windows the result encloses.
        size: of the kernels.
    """
    if isinstance(draw, Custom):
        return range(size[0]), range(size[1])
    if not isinstance(draw, tuple):
        return _support(draw, size)
    rows, columns = zip(*(support(each, size) for each in set(draw)), strict=True)
    return _enclosing(rows), _enclosing(columns)


def _enclosing(ranges: tuple[range, ...]) -> range:
    return range(min(each.start for each in ranges), max(each.stop for each in ranges))


def kernel_size(weight: Tensor) -> Size:
    """Height and width in taps of the kernels [out, in/groups, (k_h,) k_w]."""
    return (1 if weight.dim() == 3 else weight.shape[-2], weight.shape[-1])


def apply(weight: Tensor, draw: LayerDraw) -> Tensor:
    """T(W), of the shape and type of ``weight``; gradients flow through it.

    Args:
        weight: kernels [out, in/groups, (k_h,) k_w].
        draw: one draw for all ``out`` kernels, or a tuple of ``out`` draws, one for each kernel.

    Raises:
        ValueError: there must be as many draws as kernels; a user's function must keep the shape.
    """
    if isinstance(draw, tuple):
        if len(draw) != len(weight):
            raise ValueError(f"{len(draw)} draws for {len(weight)} kernels; give one draw per kernel")
        if any(isinstance(each, Custom) for each in draw):
            return torch.cat(
                [apply(kernel, each) for kernel, each in zip(weight.split(1), draw, strict=True)]
            )
    elif isinstance(draw, Custom):
        return draw(weight)
    elif _is_identity(draw, kernel_size(weight)):
        return weight
    draws = draw if isinstance(draw, tuple) else (draw,)
    size, device, dtype = kernel_size(weight), weight.device, weight.dtype
    matrices = [_matrix(each, size, device, dtype) for each in draws]
    matrix = torch.stack(matrices) if isinstance(draw, tuple) else matrices[0]
    # In the weights' own precision; autocast rounds the result when the convolution takes it.
    with torch.autocast(weight.device.type, enabled=False):
        return (weight.flatten(2) @ matrix.mT).view_as(weight)
