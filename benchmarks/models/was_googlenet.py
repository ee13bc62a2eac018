"""GoogLeNet for 32x32 images as the WAS authors build it (was.md section 4; googlenet.py)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.models.layers import check_image_size, check_positive, conv_norm, scaled

SHADOW_LAYERS = r"[abcde][345]\.branch[23]\.3"
"""The 3x3 and the 5x5 convolution of each of the nine Inception modules."""

INCEPTIONS: dict[str, tuple[int, int, int, int, int, int]] = {
    "a3": (64, 96, 128, 16, 32, 32),
    "b3": (128, 128, 192, 32, 96, 64),
    "a4": (192, 96, 208, 16, 48, 64),
    "b4": (160, 112, 224, 24, 64, 64),
    "c4": (128, 128, 256, 24, 64, 64),
    "d4": (112, 144, 288, 32, 64, 64),
    "e4": (256, 160, 320, 32, 128, 128),
    "a5": (256, 160, 320, 32, 128, 128),
    "b5": (384, 192, 384, 48, 128, 128),
}
"""Channels of: 1x1; 1x1 before 3x3, 3x3; 1x1 before 5x5, 5x5; 1x1 after the pool."""


class Inception(nn.Module):
    """Four branches side by side: 1x1, 3x3, 5x5 (one true 5x5 convolution) and max-pool."""

    def __init__(self, in_channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        one, before_three, three, before_five, five, pool = widths
        self.branch1 = nn.Sequential(*conv_norm(in_channels, one, 1))
        self.branch2 = nn.Sequential(
            *conv_norm(in_channels, before_three, 1), *conv_norm(before_three, three, 3)
        )
        self.branch3 = nn.Sequential(
            *conv_norm(in_channels, before_five, 1), *conv_norm(before_five, five, 5)
        )
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), *conv_norm(in_channels, pool, 1))
        self.out_channels = one + three + five + pool

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class GoogLeNet(nn.Module):
    """3x3 stem, nine Inception modules with two max-pools between them, mean, linear.

    Maps [N, in_channels, H, W] to logits [N, num_classes].
    """

    shadow_layers: str = "auto"

    def __init__(self, stem_width: int, width: float, num_classes: int, in_channels: int) -> None:
        super().__init__()
        channels = scaled(stem_width, width)
        self.stem = nn.Sequential(*conv_norm(in_channels, channels, 3))
        for name, widths in INCEPTIONS.items():
            inception = Inception(channels, tuple(scaled(w, width) for w in widths))
            self.add_module(name, inception)
            channels = inception.out_channels
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for name in INCEPTIONS:
            if name in ("a4", "a5"):
                x = self.maxpool(x)
            x = self.get_submodule(name)(x)
        return self.fc(self.avgpool(x).flatten(1))


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int = 32,
    width: float = 1.0,
    shadow_layers: str = SHADOW_LAYERS,
) -> GoogLeNet:
    """GoogLeNet with BatchNorm and biased convolutions, torch's default initialisation.

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
    check_image_size("this GoogLeNet", image_size, 4)
    model = GoogLeNet(192, width, num_classes, in_channels)
    model.shadow_layers = shadow_layers
    return model
