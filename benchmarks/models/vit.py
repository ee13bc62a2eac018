"""Vision transformers with fixed sin-cos positions, as the DAMP authors build them (damp.md section 8)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.errors import UserError
from benchmarks.models.layers import check_choice, check_image_size, check_positive, check_probability

INITS = ("official", "torch")


def sincos_positions(grid: int, width: int) -> Tensor:
    """The fixed position embedding [1, grid * grid, width], float64.

    Four quarters: sin and cos of the column, sin and cos of the row, at the frequencies
    ``10000 ** (-i / (width / 4 - 1))``.
    """
    quarter = width // 4
    frequency = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / (quarter - 1))
    angle = torch.arange(grid, dtype=torch.float64)[:, None] * frequency
    column = angle.repeat(grid, 1)
    row = angle.repeat_interleave(grid, 0)
    return torch.cat([column.sin(), column.cos(), row.sin(), row.cos()], dim=1)[None]


class Attention(nn.MultiheadAttention):
    """Self-attention [N, tokens, width] -> same. Parameters and their names are the parent's.

    The forward pass is spelled out in ``F.linear`` and ``F.scaled_dot_product_attention``, so that whoever
    intercepts or counts operators sees every one, in training and in inference.
    """

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        n, tokens, width = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        qkv = qkv.view(n, tokens, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(query, key, value)
        return self.out_proj(y.transpose(1, 2).reshape(n, tokens, width))


class EncoderLayer(nn.Module):
    """Pre-norm layer: attention, then a two-layer perceptron with tanh-GELU, each with a shortcut."""

    def __init__(self, width: int, heads: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attention = Attention(width, heads, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp),
            nn.GELU(approximate="tanh"),
            nn.Dropout(dropout),
            nn.Linear(mlp, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.self_attention(self.ln_1(x)))
        return x + self.mlp(self.ln_2(x))


class Encoder(nn.Module):
    """Adds the positions, runs the layers and the final LayerNorm. [N, grid * grid, width] -> same."""

    pos_embedding: Tensor

    def __init__(self, grid: int, depth: int, width: int, heads: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.grid = grid
        positions = sincos_positions(grid, width).to(torch.get_default_dtype())
        self.register_buffer("pos_embedding", positions, persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(
            OrderedDict(
                (f"encoder_layer_{i}", EncoderLayer(width, heads, mlp, dropout)) for i in range(depth)
            )
        )
        self.ln = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.ln(self.layers(self.dropout(x + self.pos_embedding)))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Encoder:
        super()._apply(fn, recurse)
        old = (
            self.pos_embedding
        )  # computed anew, so that .double() does not carry the rounding of float32 along
        positions = sincos_positions(self.grid, old.shape[-1]).to(old.dtype)
        self.pos_embedding = positions.to(old.device)
        return self


class VisionTransformer(nn.Module):
    """Patch convolution, encoder, mean over the tokens, linear head. No class token.

    Modules have torchvision's names. Maps [N, in_channels, H, H] to logits [N, num_classes].
    """

    def __init__(
        self,
        image_size: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        mlp: int,
        dropout: float,
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(in_channels, width, patch, patch)
        self.encoder = Encoder(image_size // patch, depth, width, heads, mlp, dropout)
        self.heads = nn.Sequential(OrderedDict(head=nn.Linear(width, num_classes)))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.conv_proj(x).flatten(2).transpose(1, 2)
        return self.heads(self.encoder(tokens).mean(1))


TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a standard normal variable truncated to (-2, 2)."""


def init_official(model: VisionTransformer) -> None:
    """Initialise as the DAMP authors do.

    Patch convolution: LeCun normal, truncated at two standard deviations. Matrices: Xavier uniform, each of
    query, key and value as a matrix of its own. Biases: zero, but N(0, 1e-6 squared) in the perceptrons.
    Head: zero.
    """
    patch = model.conv_proj
    std = math.sqrt(1 / patch.weight[0].numel()) / TRUNCATED_STD
    nn.init.trunc_normal_(patch.weight, std=std, a=-2 * std, b=2 * std)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.normal_(module.bias, std=1e-6)
    for module in model.modules():
        if isinstance(module, Attention):
            for matrix in module.in_proj_weight.chunk(3):
                nn.init.xavier_uniform_(matrix)
            nn.init.zeros_(module.in_proj_bias)
            nn.init.zeros_(module.out_proj.bias)
    for parameter in (patch.bias, *model.heads.parameters()):
        nn.init.zeros_(parameter)  # type: ignore[arg-type]


def build(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    patch: int = 16,
    width: int = 384,
    depth: int = 12,
    heads: int = 6,
    mlp: int = 1536,
    dropout: float = 0.0,
    init: str = "official",
) -> VisionTransformer:
    """A vision transformer. The defaults are the DAMP authors' ViT-S/16.

    Args:
        num_classes: number of logits.
        in_channels: channels of the images.
        image_size: side of the square images in pixels, a multiple of ``patch``.
        patch: side of a patch in pixels.
        width: length of a token, a multiple of 4 (positions) and of ``heads``, at least 8.
        depth: number of layers.
        heads: attention heads per layer.
        mlp: hidden units of the perceptron.
        dropout: drop probability after the positions, the attention, the GELU and the perceptron.
        init: ``official`` = :func:`init_official`; ``torch`` = torch's defaults.

    Raises:
        UserError: for numbers that do not divide, a knob outside its range or an image that is too small.
    """
    check_positive(patch=patch, width=width, depth=depth, heads=heads, mlp=mlp)
    check_probability(dropout=dropout)
    check_choice("init", init, INITS)
    check_image_size(f"a ViT with patches of {patch}x{patch}", image_size, patch)
    if image_size % patch:
        raise UserError(
            f"patch={patch} does not divide the image size {image_size}; choose a patch that does"
        )
    if width < 8 or width % 4 or width % heads:
        raise UserError(f"width={width} must be a multiple of 4 and of heads={heads}, and at least 8")
    model = VisionTransformer(image_size, patch, width, depth, heads, mlp, dropout, num_classes, in_channels)
    if init == "official":
        init_official(model)
    return model
