"""Random transforms of convolution kernels (WAS, arXiv 2405.19590): probability distributions over draws.

transform = build_transform("shift_or_crop")
[draw] = transform.draw((3, 3), generator)       # e.g. Shift(dx=1, dy=0)
shadow = apply(weight, draw)                     # same shape, differentiable
"""

from __future__ import annotations

import bisect
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from weightaug.kernel_draws import Affine, Crop, Custom, Draw, Flip, Shift, Size


class KernelTransform(ABC):
    """A probability distribution over draws."""

    @abstractmethod
    def draw(self, size: Size, generator: torch.Generator, count: int = 1) -> list[Draw | Custom]:
        """``count`` independent draws for kernels of ``size``, from a CPU generator."""


class Discrete(KernelTransform):
    """A transform with finitely many outcomes, whose probabilities are known exactly."""

    @abstractmethod
    def outcomes(self, size: Size) -> dict[Draw, float]:
        """Every outcome for kernels of ``size`` with its probability; they sum to 1."""

    def draw(self, size: Size, generator: torch.Generator, count: int = 1) -> list[Draw | Custom]:
        draws, cumulative = self._cumulative(size)
        uniform = torch.rand(count, dtype=torch.float64, generator=generator).tolist()
        return [draws[min(bisect.bisect_right(cumulative, u), len(draws) - 1)] for u in uniform]

    @lru_cache(maxsize=64)  # noqa: B019 - transforms are few, immutable and live as long as their method
    def _cumulative(self, size: Size) -> tuple[list[Draw], list[float]]:
        outcomes = self.outcomes(size)
        return list(outcomes), list(itertools.accumulate(outcomes.values()))


@dataclass(frozen=True)
class RandomShift(Discrete):
    """T1: each axis moves by ``round(U(-t k, t k))`` taps, t = ``translate``; torchvision's RandomAffine.

    With t = 0.3 a 3x3 kernel stays with probability 25/81, moves along one axis with 10/81 for each of four
    outcomes and diagonally with 4/81 for each of four; the nine outcomes of a 5x5 kernel are equally likely.
    Source: paper's T1, vgg_2d.py.
    """

    translate: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.translate <= 1:
            raise ValueError(
                f"translate is {self.translate}; it is a share of the kernel's size, from 0 to 1"
            )

    def outcomes(self, size: Size) -> dict[Draw, float]:
        down, across = self._axis(size[0]), self._axis(size[1])
        return {Shift(dx, dy): p * q for dy, p in down.items() for dx, q in across.items()}

    def _axis(self, taps: int) -> dict[int, float]:
        reach = self.translate * taps
        if reach <= 0.5:
            return {0: 1.0}
        furthest = math.ceil(reach - 0.5)
        return {
            shift: (min(shift + 0.5, reach) - max(shift - 0.5, -reach)) / (2 * reach)
            for shift in range(-furthest, furthest + 1)
        }


@dataclass(frozen=True)
class RandomCrop(Discrete):
    """T2: a random window stretched to full size; torchvision's RandomResizedCrop, bilinear.

    The window's area is U(scale_min, scale_max) times the kernel's and its width/height log-uniform in
    3/4..4/3, both sides rounded; up to 10 attempts until it fits, then the largest central window of an
    allowed ratio; its place is uniform. Source: paper's T2, vgg_1d.py (0.8, 1.0) and googlenet.py (0.6, 0.8).
    """

    scale_min: float = 0.8
    scale_max: float = 1.0

    attempts = 10
    ratio = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        if not 0 < self.scale_min < self.scale_max <= 1:
            raise ValueError(
                f"the crop's scale is {self.scale_min}..{self.scale_max}; it must satisfy 0 < min < max <= 1"
            )

    def outcomes(self, size: Size) -> dict[Draw, float]:
        if min(size) == 1:
            raise ValueError(
                f"no window of a {size[0]}x{size[1]} kernel has an allowed ratio; leave it out or use 'shift'"
            )
        windows = {
            (height, width): self._probability(height, width, size)
            for height in range(1, size[0] + 1)
            for width in range(1, size[1] + 1)
        }
        rejected = max(0.0, 1 - sum(windows.values()))
        rejected = rejected if rejected > 1e-12 else 0.0
        tries = sum(rejected**attempt for attempt in range(self.attempts))
        result: dict[Draw, float] = {}
        for (height, width), probability in windows.items():
            corners = [(i, j) for i in range(size[0] - height + 1) for j in range(size[1] - width + 1)]
            for top, left in corners if probability > 0 else []:
                result[Crop(top, left, height, width)] = probability * tries / len(corners)
        if rejected:
            fallback = self._fallback(size)
            result[fallback] = result.get(fallback, 0.0) + rejected**self.attempts
        return result

    def _probability(self, height: int, width: int, size: Size) -> float:
        """That one attempt gives this window: the measure of all (log ratio, area) that are rounded to it.

        width = round(sqrt(A e^l)) and height = round(sqrt(A e^-l)) bound the area A by a e^-l and b e^l.
        Between the crossings of these bounds the length of the interval of A is a sum of exponentials in l,
        integrated in closed form.
        """
        total = float(size[0] * size[1])
        uppers = [(self.scale_max * total, 0), ((width + 0.5) ** 2, -1), ((height + 0.5) ** 2, 1)]
        lowers = [(self.scale_min * total, 0), ((width - 0.5) ** 2, -1), ((height - 0.5) ** 2, 1)]
        first, last = (math.log(bound) for bound in self.ratio)
        crossings = {
            math.log(a / b) / (j - i)
            for (a, i), (b, j) in itertools.combinations(uppers + lowers, 2)
            if i != j and a > 0 and b > 0
        }
        points = [first, *sorted(point for point in crossings if first < point < last), last]
        measure = 0.0
        for start, end in itertools.pairwise(points):
            middle = (start + end) / 2
            upper = min(uppers, key=lambda bound: bound[0] * math.exp(bound[1] * middle))
            lower = max(lowers, key=lambda bound: bound[0] * math.exp(bound[1] * middle))
            length = _integral(upper, start, end) - _integral(lower, start, end)
            measure += max(0.0, length)
        return measure / ((last - first) * (self.scale_max - self.scale_min) * total)

    def _fallback(self, size: Size) -> Crop:
        height, width = size
        if width / height < self.ratio[0]:
            height = round(width / self.ratio[0])
        elif width / height > self.ratio[1]:
            width = round(height * self.ratio[1])
        return Crop((size[0] - height) // 2, (size[1] - width) // 2, height, width)


def _integral(bound: tuple[float, int], start: float, end: float) -> float:
    """Of ``a exp(i l)`` over l from start to end, for bound = (a, i)."""
    factor, power = bound
    if power == 0:
        return factor * (end - start)
    return factor * (math.exp(power * end) - math.exp(power * start)) / power


@dataclass(frozen=True)
class RandomFlip(Discrete):
    """Mirrored with probability 1/2: a candidate that the authors left commented out."""

    horizontal: bool = True

    def outcomes(self, size: Size) -> dict[Draw, float]:
        return {Flip(): 0.5, Flip(horizontal=self.horizontal, vertical=not self.horizontal): 0.5}


@dataclass(frozen=True)
class RandomAffine(KernelTransform):
    """Angle [degrees], shear [degrees] and scale, each uniform in its interval (low, high), nearest tap."""

    angle: tuple[float, float] = (0.0, 0.0)
    shear: tuple[float, float] = (0.0, 0.0)
    scale: tuple[float, float] = (1.0, 1.0)

    def draw(self, size: Size, generator: torch.Generator, count: int = 1) -> list[Draw | Custom]:
        uniform = torch.rand(count, 3, dtype=torch.float64, generator=generator).tolist()
        intervals = (self.angle, self.shear, self.scale)
        return [
            Affine(*(low + u * (high - low) for u, (low, high) in zip(row, intervals, strict=True)))
            for row in uniform
        ]


@dataclass(frozen=True)
class UserTransform(KernelTransform):
    """``function(weight, generator) -> weight``: any differentiable map that keeps the shape."""

    function: Callable[[Tensor, torch.Generator], Tensor]

    def draw(self, size: Size, generator: torch.Generator, count: int = 1) -> list[Draw | Custom]:
        seeds = torch.randint(2**62, (count,), generator=generator).tolist()
        return [Custom(self.function, seed) for seed in seeds]


@dataclass(frozen=True)
class Mixture(KernelTransform):
    """One of several transforms, each as likely as the others, chosen anew for each draw."""

    transforms: tuple[KernelTransform, ...]

    def draw(self, size: Size, generator: torch.Generator, count: int = 1) -> list[Draw | Custom]:
        choices = torch.randint(len(self.transforms), (count,), generator=generator).tolist()
        return [draw for choice in choices for draw in self.transforms[choice].draw(size, generator)]


@dataclass(frozen=True)
class Identity(Discrete):
    """T(W) = W."""

    def outcomes(self, size: Size) -> dict[Draw, float]:
        return {Shift(0, 0): 1.0}


UserFunction = Callable[[Tensor, torch.Generator], Tensor]


def build_transform(
    transform: str | KernelTransform | UserFunction,
    *,
    translate: float = 0.3,
    scale_min: float = 0.8,
    scale_max: float = 1.0,
) -> KernelTransform:
    """The transform of that name; ``a_or_b`` is the even mixture of two (or more).

    Args:
        transform: "identity", "shift" (T1), "crop" (T2), "hflip", "vflip", "rotate" (by U(-90, 90) degrees),
            "shear" (135 degrees), "scale" (3 to 3.5 times), names joined by "_or_", a
            :class:`KernelTransform` or a differentiable function ``(weight, generator) -> weight`` that keeps
            the shape.
        translate: T1's furthest shift as a share of the kernel's size.
        scale_min, scale_max: T2's window as a share of the kernel's area.

    Raises:
        ValueError: unknown name, or a parameter outside its range.
    """
    if isinstance(transform, KernelTransform):
        return transform
    if not isinstance(transform, str):
        return UserTransform(transform)
    known: dict[str, KernelTransform] = {
        "identity": Identity(),
        "shift": RandomShift(translate),
        "crop": RandomCrop(scale_min, scale_max),
        "hflip": RandomFlip(horizontal=True),
        "vflip": RandomFlip(horizontal=False),
        "rotate": RandomAffine(angle=(-90.0, 90.0)),
        "shear": RandomAffine(shear=(135.0, 135.0)),
        "scale": RandomAffine(scale=(3.0, 3.5)),
    }
    names = transform.split("_or_")
    for name in names:
        if name not in known:
            raise ValueError(
                f"unknown kernel transform {name!r}; use {', '.join(known)}, or several joined by '_or_'"
            )
    return known[names[0]] if len(names) == 1 else Mixture(tuple(known[name] for name in names))
