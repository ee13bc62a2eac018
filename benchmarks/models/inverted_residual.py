"""The block that MobileNetV2 and EfficientNet-Lite share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.models.layers import Norm, conv_norm


class DropConnect(nn.Dropout):
    """Drops the whole [C, H, W] of an example with probability p in training, divides others by 1 - p."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        kept = (
            torch.rand(len(input), *[1] * (input.dim() - 1), dtype=input.dtype, device=input.device) >= self.p
        )
        return input * kept / (1 - self.p)


class InvertedResidual(nn.Module):
    """1x1 to ``hidden`` channels, depthwise k x k, 1x1 to ``out_channels``, plus the input where it fits.

    BatchNorm after each, ReLU6 after the first two.

    Args:
        expand: whether the first 1x1 convolution exists (it need not change the number of channels).
        drop_connect: probability of dropping the block's own part of the sum.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        kernel: int,
        stride: int,
        *,
        expand: bool,
        bias: bool,
        norm: Norm = nn.BatchNorm2d,
        drop_connect: float = 0.0,
    ) -> None:
        super().__init__()
        self.expand = nn.Sequential()
        if expand:
            self.expand.extend(conv_norm(in_channels, hidden, 1, bias=bias, norm=norm, activation=nn.ReLU6))
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=bias)
        self.depthwise_norm = norm(hidden)
        self.relu = nn.ReLU6()
        last = conv_norm(hidden, out_channels, 1, bias=bias, norm=norm, activation=None)
        self.project = nn.Sequential(*last)
        self.skip = stride == 1 and in_channels == out_channels
        self.drop_connect = DropConnect(drop_connect)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.depthwise_norm(self.depthwise(self.expand(x))))
        y = self.project(y)
        return x + self.drop_connect(y) if self.skip else y
