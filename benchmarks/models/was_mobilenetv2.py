"""MobileNetV2 for 32x32 images as the WAS authors build it (was.md section 4; mobilenetv2.py)."""

from __future__ import annotations

from torch import Tensor, nn

from benchmarks.models.inverted_residual import InvertedResidual
from benchmarks.models.layers import check_image_size, check_positive, conv_norm, scaled

SHADOW_LAYERS = r"blocks\.\d+\.depthwise"
"""The depthwise 3x3 convolution of every block."""

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 1),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks, stride of the first block."""


class MobileNetV2(nn.Module):
    """1x1 stem, inverted residual blocks, 1x1 to 1280 channels, mean, 1x1 convolution as the classifier.

    Maps [N, in_channels, H, W] to logits [N, num_classes].
    """

    shadow_layers: str = "auto"

    def __init__(self, width: float, num_classes: int, in_channels: int) -> None:
        super().__init__()
        channels, last = scaled(32, width), scaled(1280, width)
        self.stem = nn.Sequential(*conv_norm(in_channels, channels, 1, activation=nn.ReLU6))
        self.blocks = nn.Sequential()
        for expansion, base, count, first_stride in STAGES:
            for number in range(count):
                stride, out = first_stride if number == 0 else 1, scaled(base, width)
                hidden = channels * expansion
                self.blocks.append(InvertedResidual(channels, hidden, out, 3, stride, expand=True, bias=True))
                channels = out
        self.head = nn.Sequential(*conv_norm(channels, last, 1, activation=nn.ReLU6))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Conv2d(last, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.head(self.blocks(self.stem(x))))).flatten(1)


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int = 32,
    width: float = 1.0,
    shadow_layers: str = SHADOW_LAYERS,
) -> MobileNetV2:
    """MobileNetV2 with biased convolutions, torch's default initialisation.

    Args:
        num_classes: number of logits.
        in_channels: channels of the images.
        image_size: side of the square images in pixels; only checked.
        width: factor of all channels.
        shadow_layers: what WAS with ``layers="auto"`` transforms, a regular expression on module names.

    Raises:
        UserError: for an image that is too small or a width not above 0.
    """
    check_positive(width=width)
    check_image_size("this MobileNetV2", image_size, 8)
    model = MobileNetV2(width, num_classes, in_channels)
    model.shadow_layers = shadow_layers
    return model
