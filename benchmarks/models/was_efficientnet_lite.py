"""EfficientNet-Lite0 for 32x32 images as the WAS authors build it (was.md section 4; effnetv2.py)."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from benchmarks.models.inverted_residual import InvertedResidual
from benchmarks.models.layers import check_image_size, check_positive, check_probability, conv_norm, scaled

SHADOW_LAYERS = r"blocks\.\d+\.depthwise"
"""The depthwise 3x3 or 5x5 convolution of every block."""

STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride of the first block, expansion, channels."""


class EfficientNetLite(nn.Module):
    """3x3 stem of stride 2, inverted residual blocks (no squeeze-and-excitation), 1x1 to 1280, mean, linear.

    Maps [N, in_channels, H, W] to logits [N, num_classes]. On 32x32 images the maps are 16, 8, 4, 2 and 1
    wide: the last five depthwise convolutions give single pixels, and four of them see one.
    """

    shadow_layers: str = "auto"

    def __init__(
        self, width: float, dropout: float, drop_connect: float, num_classes: int, in_channels: int
    ) -> None:
        super().__init__()
        norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
        layer = partial(conv_norm, bias=False, norm=norm, activation=nn.ReLU6)
        channels, last = scaled(32, width), scaled(1280, width)
        self.stem = nn.Sequential(*layer(in_channels, channels, 3, 2))
        self.blocks = nn.Sequential()
        for count, kernel, first_stride, expansion, base in STAGES:
            for number in range(count):
                block = InvertedResidual(
                    channels,
                    channels * expansion,
                    scaled(base, width),
                    kernel,
                    first_stride if number == 0 else 1,
                    expand=expansion != 1,
                    bias=False,
                    norm=norm,
                    # Divided by the number of stages, not of blocks, as the authors do: it rises to 3/7.
                    drop_connect=drop_connect * len(self.blocks) / len(STAGES),
                )
                self.blocks.append(block)
                channels = scaled(base, width)
        self.head = nn.Sequential(*layer(channels, last, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.head(self.blocks(self.stem(x)))).flatten(1)
        return self.fc(self.dropout(x))


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int = 32,
    width: float = 1.0,
    dropout: float = 0.2,
    drop_connect: float = 0.2,
    shadow_layers: str = SHADOW_LAYERS,
) -> EfficientNetLite:
    """EfficientNet-Lite0, torch's default initialisation, BatchNorm with eps 1e-3 and momentum 0.01.

    Args:
        num_classes: number of logits.
        in_channels: channels of the images.
        image_size: side of the square images in pixels; only checked.
        width: factor of all channels.
        dropout: probability before the last layer.
        drop_connect: block i of 16 (from 0) drops its part with probability ``drop_connect * i / 7``.
        shadow_layers: what WAS with ``layers="auto"`` transforms, a regular expression on module names.

    Raises:
        UserError: for an image that is too small, a width not above 0 or a probability outside [0, 1).
    """
    check_positive(width=width)
    check_probability(dropout=dropout, drop_connect=drop_connect)
    check_image_size("EfficientNet-Lite0", image_size, 32)
    model = EfficientNetLite(width, dropout, drop_connect, num_classes, in_channels)
    model.shadow_layers = shadow_layers
    return model
