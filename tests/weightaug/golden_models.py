"""The small networks that the golden vectors were computed with (their parameters' names and shapes)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vision_transformer import EncoderBlock


class Conv(nn.Conv2d):
    """A convolution padded symmetrically, or as Flax's SAME does."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, same: bool) -> None:
        super().__init__(inputs, outputs, size, stride, 0 if same else size // 2, bias=False)
        self.same = same

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(same_padding(x, self.kernel_size[0], self.stride[0]) if self.same else x)


def same_padding(x: Tensor, size: int, stride: int, value: float = 0.0) -> Tensor:
    padding = []
    for n in (x.shape[-1], x.shape[-2]):
        total = max((-(-n // stride) - 1) * stride + size - n, 0)
        padding += [total // 2, total - total // 2]
    return F.pad(x, padding, value=value)


class Block(nn.Module):
    """Basic (3x3, 3x3) or bottleneck (1x1, 3x3 with the stride, 1x1) residual block, post- or pre-activation."""

    def __init__(self, inputs: int, width: int, stride: int, same: bool, bottleneck: bool, preact: bool) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        shapes = (
            [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
            if bottleneck
            else [(inputs, width, 3, stride), (width, width, 3, 1)]
        )
        for i, shape in enumerate(shapes, 1):
            setattr(self, f"conv{i}", Conv(*shape, same))
            setattr(self, f"bn{i}", nn.BatchNorm2d(shape[0] if preact else shape[1]))
        self.count = len(shapes)
        self.preact = preact
        self.downsample = None
        if inputs != outputs or stride > 1:
            projection: list[nn.Module] = [Conv(inputs, outputs, 1, stride, same)]
            self.downsample = nn.Sequential(*projection, *([] if preact else [nn.BatchNorm2d(outputs)]))

    def forward(self, x: Tensor) -> Tensor:
        return self._preact(x) if self.preact else self._postact(x)

    def _postact(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = y if i == self.count else y.relu()
        return (y + (x if self.downsample is None else self.downsample(x))).relu()

    def _preact(self, x: Tensor) -> Tensor:
        x = self.bn1(x).relu()  # the shortcut starts after the first activation, also the identity
        y = self.conv2(self.bn2(self.conv1(x)).relu())
        return y + (x if self.downsample is None else self.downsample(x))


class ResNet(nn.Module):
    def __init__(
        self, widths: list[int], blocks: list[int], same: bool, bottleneck: bool = False, preact: bool = False
    ) -> None:
        super().__init__()
        self.imagenet = bottleneck
        self.same = same
        self.preact = preact
        self.conv1 = Conv(3, widths[0], 7 if self.imagenet else 3, 2 if self.imagenet else 1, same)
        inputs = widths[0]
        self.stages = len(widths)
        if not preact:
            self.bn1 = nn.BatchNorm2d(inputs)
        for i, (width, count) in enumerate(zip(widths, blocks, strict=True), 1):
            layers = []
            for j in range(count):
                layers.append(Block(inputs, width, 2 if i > 1 and j == 0 else 1, same, bottleneck, preact))
                inputs = 4 * width if bottleneck else width
            setattr(self, f"layer{i}", nn.Sequential(*layers))
        if preact:
            self.bn = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = x if self.preact else self.bn1(x).relu()
        if self.imagenet:
            padded = same_padding(x, 3, 2, -torch.inf) if self.same else x
            x = F.max_pool2d(padded, 3, 2, 0 if self.same else 1)
        for i in range(1, self.stages + 1):
            x = getattr(self, f"layer{i}")(x)
        x = self.bn(x).relu() if self.preact else x
        return self.fc(x.mean((2, 3)))


class ViT(nn.Module):
    """Names as in torchvision's VisionTransformer; no class token, mean over the tokens, fixed position embedding."""

    def __init__(self, width: int = 16, heads: int = 2, mlp: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, width, 4, 4)
        self.encoder = nn.Module()
        self.encoder.layers = nn.Sequential()
        for i in range(depth):
            block = EncoderBlock(heads, width, mlp, 0.0, 0.0)
            block.mlp[1] = nn.GELU("tanh")
            self.encoder.layers.add_module(f"encoder_layer_{i}", block)
        self.encoder.ln = nn.LayerNorm(width, eps=1e-6)
        self.heads = nn.Sequential()
        self.heads.add_module("head", nn.Linear(width, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_proj(x)
        side, width = x.shape[-1], x.shape[1]
        x = x.flatten(2).transpose(1, 2) + sincos(side, width).to(x)
        x = self.encoder.ln(self.encoder.layers(x))
        return self.heads(x.mean(1))


def sincos(side: int, width: int) -> Tensor:
    """[side^2, width]: sin x, cos x, sin y, cos y of the token's column x and row y."""
    rate = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4 - 1))
    y, x = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * 2, indexing="ij")
    x, y = x.flatten()[:, None] * rate, y.flatten()[:, None] * rate
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)


class Tiny(nn.Module):
    """The network of the davda54 and Samsung vectors: convolutions with biases, PyTorch's BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3, 2, 1)
        self.bn2 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return self.fc(x.mean((2, 3)))


def build(name: str, shapes: dict[str, list[int]]) -> nn.Module:
    """The network of golden case ``name``, in float64."""
    if "vit" in name:
        return ViT().double()
    if name.startswith(("davda54", "samsung")):
        return Tiny().double()
    kinds = {"bottleneck": "bottleneck" in name, "preact": "preact" in name}
    stages: dict[str, dict[str, int]] = {}
    for key, shape in shapes.items():
        if key.startswith("layer") and key.endswith("conv1.weight"):
            stage, block, *_ = key.split(".")
            stages.setdefault(stage, {})[block] = shape[0]
    widths = [blocks["0"] for _, blocks in sorted(stages.items())]
    counts = [len(blocks) for _, blocks in sorted(stages.items())]
    return ResNet(widths, counts, same="same" in name, **kinds).double()
