"""How M convolutions with weights of their own run as few: three layouts of the same sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from weightaug.stacks import SubBatches

LOOP_FROM = 2**24
"""Multiply-adds of one copy from which on, on a CPU, M convolutions beat one with M times as many groups."""


def grouped(
    mode: SubBatches, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """One grouped convolution: [M*b, C, *S] -> [b, M*C, *S], M times as many groups, and back."""
    if bias is not None:
        bias = mode.stacked(bias).flatten()
    x = input.unflatten(0, (mode.copies, -1)).transpose(0, 1).flatten(1, 2)
    y = func(x, mode.stacked(weight).flatten(0, 1), bias, stride, padding, dilation, groups * mode.copies)
    return y.unflatten(1, (mode.copies, -1)).transpose(0, 1).flatten(0, 1)


def each_copy(mode: SubBatches, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Run ``func`` once per copy on the copy's rows of ``x``: right for every function, M launches."""
    own = mode.by_copy((args, kwargs))
    parts = x.split(mode.row_counts(x))
    outputs = [func(part, *args, **kwargs) for part, (args, kwargs) in zip(parts, own, strict=True)]
    return torch.cat(outputs)


def matrix_product(
    mode: SubBatches, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
    *_: Any,
) -> Tensor:  # fmt: skip
    """A kernel of one tap as one batched product: [M, 1, O, C] times [M, b, C, S]."""
    every: Any = (..., *(slice(None, None, step) for step in _per_axis(stride, input.dim() - 2)))
    input = input[every]
    x = input.flatten(2).unflatten(0, (mode.copies, -1))
    y = torch.matmul(mode.stacked(weight).flatten(2).unsqueeze(1), x)
    if bias is not None:
        y = y + mode.stacked(bias)[:, None, :, None]
    return y.flatten(0, 1).unflatten(2, input.shape[2:])


LAYOUTS: dict[str, Callable[..., Tensor]] = {
    "grouped": grouped,
    "loop": each_copy,
    "matmul": matrix_product,
}


def convolution(
    mode: SubBatches, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """``func``, one of torch's convolutions, with a weight and perhaps a bias of its own for each copy."""
    mode.row_counts(input)  # raises where the copies' rows can't be told
    run = LAYOUTS[layout(mode, input, weight, stride, padding, groups)]
    return run(mode, func, input, weight, bias, stride, padding, dilation, groups)


def layout(
    mode: SubBatches, input: Tensor, weight: Tensor, stride: Any = 1, padding: Any = 0, groups: int = 1
) -> str:
    """The layout that is fastest as far as has been measured (``docs/performance.md``).

    It depends on shapes and the kind of device alone, never on a clock, as the layouts round differently and a
    run must not depend on when it is made.
    """
    if not mode.even:
        return "loop"
    if input.device.type != "cpu":
        return "grouped"
    if can_multiply(mode, weight, padding, groups):
        return "matmul"
    positions = math.prod(input.shape[2:]) / math.prod(_per_axis(stride, input.dim() - 2))
    macs = len(input) / mode.copies * positions * mode.stacked(weight)[0].numel()
    return "loop" if macs >= LOOP_FROM else "grouped"


def can_multiply(mode: SubBatches, weight: Tensor, padding: Any, groups: int) -> bool:
    """Whether the convolution is a matrix product: one tap, one group, nothing around the input."""
    taps = mode.stacked(weight).shape[3:]
    return math.prod(taps) == 1 and groups == 1 and padding in (0, "valid", (0,) * len(taps), [0] * len(taps))


def _per_axis(stride: Any, axes: int) -> tuple[int, ...]:
    return (stride,) * axes if isinstance(stride, int) else tuple(stride) * (axes // len(stride))
