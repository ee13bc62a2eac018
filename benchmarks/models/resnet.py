"""Post-activation residual networks, as the DAMP authors build them (He et al. 2016a; damp.md section 8)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from benchmarks.models.layers import (
    PADDINGS,
    check_choice,
    check_image_size,
    check_positive,
    conv,
    max_pool,
    parse_counts,
)

STEMS = ("cifar", "imagenet")
INITS = ("official", "torch")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, the first with the stride; ReLU after the sum."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, padding: str, shortcut: int = 1) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, width, 3, stride, padding)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, 1, padding)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.downsample = projection(in_channels, width, stride, padding, shortcut)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1 to four times the width; ReLU after the sum."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, padding: str, shortcut: int = 1) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = conv(in_channels, width, 1, 1, padding)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride, padding)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, out_channels, 1, 1, padding)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.downsample = projection(in_channels, out_channels, stride, padding, shortcut)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def projection(
    in_channels: int, out_channels: int, stride: int, padding: str, kernel: int
) -> nn.Sequential | None:
    """The shortcut where a block changes the shape: convolution and BatchNorm. None where it does not."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        conv(in_channels, out_channels, kernel, stride, padding), nn.BatchNorm2d(out_channels)
    )


class ResNet(nn.Module):
    """Stem, stages of residual blocks (all but the first double the width and halve the size), mean, linear.

    Modules have torchvision's names. Maps [N, in_channels, H, W] to logits [N, num_classes].
    """

    shadow_layers: str = "auto"

    def __init__(
        self,
        blocks: list[int],
        width: int,
        block: type[BasicBlock] | type[Bottleneck],
        stem: str,
        padding: str,
        shortcut: int,
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.conv1 = conv(in_channels, width, kernel, stride, padding)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = max_pool(3, 2, padding) if stem == "imagenet" else nn.Identity()
        self.stages = len(blocks)
        channels = width
        for i, count in enumerate(blocks):
            stage = nn.Sequential()
            for j in range(count):
                stage.append(block(channels, width * 2**i, 2 if i > 0 and j == 0 else 1, padding, shortcut))
                channels = width * 2**i * block.expansion
            self.add_module(f"layer{i + 1}", stage)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(self.avgpool(x).flatten(1))


def init_official(model: nn.Module) -> None:
    """Initialise as the DAMP authors do: convolutions N(0, 2 / fan_out), not truncated; linear layers
    U(-1, 1) / sqrt(number of outputs) with zero bias; BatchNorm 1 and 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.out_features)
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)


def least_image(stages: int, stem: str) -> int:
    """The smallest image side for which no stage strides over a map of a single pixel."""
    return 2 ** (stages - 1 + (2 if stem == "imagenet" else 0))


def build(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    blocks: str = "2,2,2,2",
    width: int = 64,
    block: str = "basic",
    stem: str = "cifar",
    padding: str = "same",
    zero_init_gamma: bool = True,
    init: str = "official",
    shortcut: int = 1,
    shadow_layers: str = "auto",
) -> ResNet:
    """A residual network. The defaults are the DAMP authors' ResNet-18 for CIFAR.

    Args:
        num_classes: number of logits.
        in_channels: channels of the images.
        image_size: side of the square images in pixels; only checked, the weights do not depend on it.
        blocks: blocks per stage, e.g. ``"3,4,6,3"``.
        width: channels of the first stage; each further stage doubles it.
        block: ``basic`` (two 3x3) or ``bottleneck`` (1x1, 3x3, 1x1 with four times the channels).
        stem: ``cifar`` (3x3, stride 1, no pool) or ``imagenet`` (7x7, stride 2; 3x3 max-pool, stride 2).
        padding: ``same`` = Flax's SAME, the authors'; ``symmetric`` = equal on both sides, torchvision's.
        zero_init_gamma: start with the last BatchNorm scale of each block at zero.
        init: ``official`` = :func:`init_official`; ``torch`` = torch's defaults.
        shortcut: kernel of the shortcuts' convolutions: 1, or 3 as the WAS authors have it.
        shadow_layers: what WAS with ``layers="auto"`` transforms, a regular expression on module names;
            "auto" leaves it to WAS.

    Raises:
        UserError: for an unknown knob value or an image that is too small.
    """
    counts = parse_counts("blocks", blocks)
    check_positive(width=width)
    check_choice("block", block, tuple(BLOCKS))
    check_choice("stem", stem, STEMS)
    check_choice("padding", padding, PADDINGS)
    check_choice("init", init, INITS)
    check_choice("shortcut", str(shortcut), ("1", "3"))
    check_image_size(
        f"a ResNet of {len(counts)} stages with the {stem} stem", image_size, least_image(len(counts), stem)
    )
    model = ResNet(counts, width, BLOCKS[block], stem, padding, shortcut, num_classes, in_channels)
    model.shadow_layers = shadow_layers
    if init == "official":
        init_official(model)
    if zero_init_gamma:
        for module in model.modules():
            if isinstance(module, BasicBlock | Bottleneck):
                nn.init.zeros_(module.last_norm.weight)
    return model
