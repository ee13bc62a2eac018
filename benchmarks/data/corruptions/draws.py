"""Random numbers of the corruptions: a pure function of (seed, corruption, severity, image index).

A counter-based generator. The key of one draw is a hash of (seed, corruption, severity, number of the draw); the key
of an image's part in it is the SplitMix64 output at position ``index`` of the stream that starts there; the image's
numbers are the outputs of the stream that starts at that. Position j of a SplitMix64 stream is ``mix(state + (j + 1) *
GOLDEN)``, so all numbers of all images are computed at once, on the device, by integer operations that are exact
everywhere. No number depends on the batch, its order or on another image. (Steele, Lea and Flood, "Fast Splittable
Pseudorandom Number Generators", OOPSLA 2014; the constants of its mix function are Stafford's variant 13.)

Normal numbers come from a table of the inverse distribution function, by one multiplication and one addition, so
that they too are the same bits on every device; :func:`normal_table` says how precise it is.
"""

from __future__ import annotations

from functools import cache
from math import prod

import torch
from torch import Tensor

from weightaug.random import derive_seed

GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
FACTORS = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))
OCTAVES, STEPS = 33, 64  # of the table of the normal distribution: octaves of the probability, steps in each


def mix(state: Tensor) -> Tensor:
    """SplitMix64's output for each int64 state, in place."""
    for shift, factor in ((30, FACTORS[0]), (27, FACTORS[1]), (31, 1)):
        high = (state >> shift).bitwise_and_(
            (1 << (64 - shift)) - 1
        )  # the mask makes the shift a logical one
        state.bitwise_xor_(high)
        if factor != 1:
            state.mul_(factor)
    return state


def stream(state: Tensor | int, positions: Tensor) -> Tensor:
    """The outputs of the SplitMix64 streams that start at ``state``, at ``positions`` from 0."""
    return mix((positions + 1) * GOLDEN + state)


@cache
def normal_table(device: torch.device) -> tuple[Tensor, Tensor]:
    """Offset and slope of the inverse normal distribution function, piecewise linear.

    Its argument is f = 0.5 ... 2^31 - 0.5, the probability in steps of 2^-32. Each octave of f has ``STEPS`` pieces.
    The largest error is 2.2e-5, of numbers that reach from -6.34 to 6.34.
    """
    octave = torch.arange(OCTAVES, dtype=torch.float64).view(-1, 1)
    edge = torch.arange(STEPS + 1, dtype=torch.float64) / STEPS + 1
    edges = edge * 2 ** (octave - 1)
    values = torch.special.ndtri((edges * 2**-32).clamp(max=0.5))
    slope = (values[:, 1:] - values[:, :-1]) / (edges[:, 1:] - edges[:, :-1])
    offset = values[:, :-1] - slope * edges[:, :-1]
    return offset.flatten().to(device), slope.flatten().to(device)


class Draws:
    """The random numbers of one corruption at one severity for the images ``indices``.

    Every call is a new draw. A shape is what each image gets; results are [N, *shape], on the device of ``indices``.

    Args:
        indices: int64 [N], the images' numbers in their data set.
    """

    def __init__(self, seed: int, name: str, severity: int, indices: Tensor) -> None:
        self.key = ("corruption", seed, name, severity)
        self.indices = indices
        self.device = indices.device
        self.drawn = 0

    def words(self, *shape: int) -> Tensor:
        """Independent bits, int32."""
        count = prod(shape)
        start = derive_seed(*self.key, self.drawn)
        self.drawn += 1
        keys = stream(start, self.indices).unsqueeze(1)
        numbers = stream(keys, torch.arange((count + 1) // 2, device=self.device))
        return numbers.view(torch.int32)[:, :count].reshape(len(self.indices), *shape)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform on [low, high), in 2^32 steps, float64."""
        return low + (high - low) * self.words(*shape).double().mul_(2**-32).add_(0.5)

    def integers(self, *shape: int, low: int = 0, high: int) -> Tensor:
        """Uniform on low ... high - 1, int64; the bias is below 2^-32 for each number."""
        return self.uniform(*shape).mul_(high - low).long().add_(low)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, float64."""
        words = self.words(*shape)
        below = (words & 0x7FFFFFFF).double().add_(0.5)  # the probability to be more extreme, times 2^32
        # Exponent and first bits of the mantissa are the number of the piece; 0.5 has the exponent 1022.
        piece = (below.view(torch.int64) >> 46) - 1022 * STEPS
        offset, slope = normal_table(self.device)
        negative = below.mul_(_take(slope, piece)).add_(_take(offset, piece))
        return torch.copysign(negative, words)


def _take(table: Tensor, positions: Tensor) -> Tensor:
    return table.index_select(0, positions.flatten()).view(positions.shape)
