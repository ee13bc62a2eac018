"""Small networks that hold every usual layer. Imports little: worker processes start soon."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Mixed(nn.Module):
    """Convolutions (plain, grouped, strided), normalisations, attention, bare parameters: [N, 3, 8, 8] -> [N, 3]."""

    def __init__(self, batch_norm: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=not batch_norm)
        self.norm = nn.BatchNorm2d(8) if batch_norm else nn.Identity()
        self.grouped = nn.Conv2d(8, 8, 3, padding="same", groups=2)
        self.group_norm = nn.GroupNorm(2, 8)
        self.layer_scale = nn.Parameter(torch.rand(8, 1, 1))
        self.patches = nn.Conv2d(8, 8, 4, stride=4)
        self.class_token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 5, 8))
        self.ahead = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.slope = nn.PReLU()
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x + self.layer_scale * self.group_norm(self.grouped(x))
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        y = self.ahead(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head(self.slope(x).mean(1))


def mixed(seed: int = 0, batch_norm: bool = True, dtype: torch.dtype = torch.float64) -> Mixed:
    torch.manual_seed(seed)
    return Mixed(batch_norm).to(dtype)


def batch(count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, 8, 8, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.arange(count) % 3


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
