"""Pre-activation residual networks, as the DAMP authors build them (He et al. 2016b; damp.md section 8).

One deviation from the original is the authors': the shortcut of EVERY block, identity ones too, starts after
the block's first BatchNorm and ReLU.
"""

from __future__ import annotations

from torch import Tensor, nn

from benchmarks.models.layers import (
    PADDINGS,
    check_choice,
    check_image_size,
    check_positive,
    conv,
    parse_counts,
)
from benchmarks.models.resnet import INITS, init_official, least_image


class PreActBlock(nn.Module):
    """BatchNorm, ReLU, 3x3 convolution with the stride, BatchNorm, ReLU, 3x3 convolution."""

    def __init__(self, in_channels: int, width: int, stride: int, padding: str) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv(in_channels, width, 3, stride, padding)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, 1, padding)
        self.relu = nn.ReLU()
        same_shape = stride == 1 and in_channels == width
        self.downsample = None if same_shape else nn.Sequential(conv(in_channels, width, 1, stride, padding))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(x))
        y = self.relu(self.bn2(self.conv1(x)))
        return self.conv2(y) + (x if self.downsample is None else self.downsample(x))


class PreActResNet(nn.Module):
    """A 3x3 stem without BatchNorm, stages of pre-activation blocks, BatchNorm, ReLU, mean, linear.

    Maps [N, in_channels, H, W] to logits [N, num_classes].
    """

    def __init__(
        self, blocks: list[int], width: int, padding: str, num_classes: int, in_channels: int
    ) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, width, 3, 1, padding)
        self.stages = len(blocks)
        channels = width
        for i, count in enumerate(blocks):
            stage = nn.Sequential()
            for j in range(count):
                stage.append(PreActBlock(channels, width * 2**i, 2 if i > 0 and j == 0 else 1, padding))
                channels = width * 2**i
            self.add_module(f"layer{i + 1}", stage)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(self.avgpool(self.relu(self.bn(x))).flatten(1))


def build(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    blocks: str = "2,2,2,2",
    width: int = 64,
    padding: str = "same",
    init: str = "official",
) -> PreActResNet:
    """A pre-activation residual network. The defaults are the DAMP authors' PreActResNet-18 for TinyImageNet.

    Args:
        num_classes: number of logits.
        in_channels: channels of the images.
        image_size: side of the square images in pixels; only checked, the weights do not depend on it.
        blocks: blocks per stage, e.g. ``"2,2,2,2"``.
        width: channels of the first stage; each further stage doubles it.
        padding: ``same`` = Flax's SAME, the authors'; ``symmetric`` = the same pad on both sides.
        init: ``official`` = :func:`benchmarks.models.resnet.init_official`; ``torch`` = torch's defaults.

    Raises:
        UserError: for an unknown knob value or an image that is too small.
    """
    counts = parse_counts("blocks", blocks)
    check_positive(width=width)
    check_choice("padding", padding, PADDINGS)
    check_choice("init", init, INITS)
    check_image_size(f"a PreActResNet of {len(counts)} stages", image_size, least_image(len(counts), "cifar"))
    model = PreActResNet(counts, width, padding, num_classes, in_channels)
    if init == "official":
        init_official(model)
    return model
