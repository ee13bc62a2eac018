"""The network that the WAS authors call ResNet-50, for 32x32 images (was.md section 4; resnet_50.py).

It has ResNet-50's 3, 4, 6, 3 blocks, but blocks that do not widen (expansion 1, not 4), a shortcut convolution in
every block and a 7x7 stem of stride 1.
"""

from __future__ import annotations

from torch import Tensor, nn

from benchmarks.models.layers import check_image_size, check_positive, conv_norm, parse_counts

SHADOW_LAYERS = r"layer\d\.\d+\.residual\.3"
"""The 3x3 convolution of every block."""


class Block(nn.Module):
    """1x1, 3x3 with the stride, 1x1, all of ``width`` channels; plus a 1x1 shortcut; ReLU after the sum."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.shortcut = nn.Sequential(*conv_norm(in_channels, width, 1, stride, activation=None))
        self.residual = nn.Sequential(
            *conv_norm(in_channels, width, 1),
            *conv_norm(width, width, 3, stride),
            *conv_norm(width, width, 1, activation=None),
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.shortcut(x) + self.residual(x))


class ResNet50(nn.Module):
    """7x7 stem of stride 1, 3x3 max-pool of stride 2, stages of blocks, mean, linear.

    Maps [N, in_channels, H, W] to logits [N, num_classes].
    """

    shadow_layers: str = "auto"

    def __init__(self, blocks: list[int], width: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_norm(in_channels, width, 7, bias=False), nn.MaxPool2d(3, 2, 1))
        self.stages = len(blocks)
        channels = width
        for i, count in enumerate(blocks):
            stage = nn.Sequential()
            for j in range(count):
                stage.append(Block(channels, width * 2**i, 2 if i > 0 and j == 0 else 1))
                channels = width * 2**i
            self.add_module(f"layer{i + 1}", stage)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for i in range(self.stages):
            x = self.get_submodule(f"layer{i + 1}")(x)
        return self.fc(self.avgpool(x).flatten(1))


def build(
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int = 32,
    blocks: str = "3,4,6,3",
    width: int = 64,
    shadow_layers: str = SHADOW_LAYERS,
) -> ResNet50:
    """The WAS authors' ResNet-50: biased convolutions but for the stem, torch's default initialisation.

    Args:
        num_classes: number of logits.
        in_channels: channels of the images.
        image_size: side of the square images in pixels; only checked.
        blocks: blocks per stage, e.g. ``"3,4,6,3"``.
        width: channels of the first stage; each further stage doubles it.
        shadow_layers: what WAS with ``layers="auto"`` transforms, a regular expression on module names.

    Raises:
        UserError: for an image that is too small or a knob outside its range.
    """
    counts = parse_counts("blocks", blocks)
    check_positive(width=width)
    check_image_size(f"this ResNet of {len(counts)} stages", image_size, 2 ** len(counts))
    model = ResNet50(counts, width, num_classes, in_channels)
    model.shadow_layers = shadow_layers
    return model
