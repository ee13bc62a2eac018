"""What the architectures share: padding variants, convolution with BatchNorm, checks of what they are asked for."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.errors import UserError, unknown_name

PADDINGS = ("same", "symmetric")

Norm = Callable[[int], nn.BatchNorm2d]
"""Makes the BatchNorm of so many channels."""


def pad_same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], value: float = 0.0) -> Tensor:
    """Pad [N, C, H, W] as Flax's SAME does, so that the output has ``ceil(size / stride)`` points per axis.

    The total is split in two with the odd pixel at the end: a 3x3 window of stride 2 pads (0, 1) where the
    size is even and (1, 1) where it is odd.
    """
    pads: list[int] = []
    for size, k, s in reversed(
        list(zip(x.shape[-2:], kernel, stride, strict=True))
    ):  # F.pad: last axis first
        n = int(size)  # a plain number when traced, too: the pad is a property of the network, not arithmetic
        total = max((-(-n // s) - 1) * s + k - n, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


class SameConv2d(nn.Conv2d):
    """A convolution with SAME padding, see :func:`pad_same`. Its own ``padding`` is 0, the input has it."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(pad_same(input, self.kernel_size, self.stride))


class SameMaxPool2d(nn.MaxPool2d):
    """A max-pool with SAME padding by minus infinity, see :func:`pad_same`."""

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = (self.kernel_size,) * 2, (self.stride,) * 2
        return super().forward(pad_same(input, kernel, stride, float("-inf")))  # type: ignore[arg-type]


def conv(in_channels: int, out_channels: int, kernel: int, stride: int, padding: str) -> nn.Conv2d:
    """A convolution without bias. The padding variants differ only where a window larger than 1 strides."""
    if padding == "same" and stride > 1 and kernel > 1:
        return SameConv2d(in_channels, out_channels, kernel, stride, bias=False)
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)


def max_pool(kernel: int, stride: int, padding: str) -> nn.MaxPool2d:
    """The max-pool of the ImageNet stem in the padding variant."""
    return SameMaxPool2d(kernel, stride) if padding == "same" else nn.MaxPool2d(kernel, stride, kernel // 2)


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    *,
    bias: bool = True,
    norm: Norm = nn.BatchNorm2d,
    activation: type[nn.Module] | None = nn.ReLU,
) -> list[nn.Module]:
    """A convolution with the same pad on both sides, its BatchNorm and the activation, if any."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=bias)
    return [convolution, norm(out_channels), *([activation()] if activation else [])]


def scaled(channels: int, width: float) -> int:
    """``channels`` times the factor ``width``, at least 1."""
    return max(1, round(channels * width))


def parse_counts(knob: str, text: str) -> list[int]:
    """``"2,2,2,2"`` -> [2, 2, 2, 2], all positive."""
    try:
        counts = [int(part) for part in str(text).split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise UserError(
            f"{knob} must be whole numbers above 0 with commas between them, such as 2,2,2,2; got {text!r}"
        )
    return counts


def check_choice(knob: str, value: str, known: tuple[str, ...]) -> None:
    """Raise the error for a knob whose value is none of ``known``."""
    if value not in known:
        raise unknown_name(knob, value, known)


def check_positive(**knobs: float) -> None:
    """Raise the error for the first knob that is not above 0."""
    for knob, value in knobs.items():
        if not value > 0:
            raise UserError(f"{knob}={value} must be above 0")


def check_probability(**knobs: float) -> None:
    """Raise the error for the first knob that is no probability of dropping something."""
    for knob, value in knobs.items():
        if not 0 <= value < 1:
            raise UserError(f"{knob}={value} must be a probability: at least 0 and below 1")


def check_image_size(model: str, image_size: int, least: int) -> None:
    """Raise the error for an image that is too small to be strided as often as the model does."""
    if image_size < least:
        raise UserError(
            f"{model} needs images of at least {least}x{least} pixels, got {image_size}x{image_size}; "
            f"choose a model with fewer strides or a data set with larger images"
        )
