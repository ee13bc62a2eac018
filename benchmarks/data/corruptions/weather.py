"""Weather: snow, frost and fog."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.data.corruptions.draws import Draws
from benchmarks.data.corruptions.filters import clipped_zoom, motion
from benchmarks.errors import UserError

LUMA = (0.299, 0.587, 0.114)
PHOTOGRAPHS = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
"""The reference draws one of these; the sixth file that lies beside them is never drawn."""
FROST_MISSING = (
    "corruption frost lacks its photographs, which are files of the package imagecorruptions; "
    "install it with `pip install weightaug[corruptions]`"
)


def snow(
    images: Tensor,
    draws: Draws,
    mean: float,
    std: float,
    zoom: float,
    threshold: float,
    radius: int,
    sigma: float,
    clear: float,
) -> Tensor:
    """Flakes are the values above ``threshold`` of enlarged N(mean, std^2) noise, blurred by their fall.

    The image is whitened to a share of 1 - ``clear``, then the flakes are added, and once more turned by 180 degrees.
    """
    height, width = images.shape[2:]
    flakes = draws.normal(1, height, width).mul_(std).add_(mean)
    flakes = clipped_zoom(flakes, zoom).transpose(2, 3).contiguous()
    flakes *= flakes >= threshold
    flakes = flakes.clamp_(0, 1).mul_(255).floor_()  # as an 8-bit image, before the blur and after it
    flakes = motion(flakes, radius, sigma, draws.uniform(low=-135, high=-45)).round_().div_(255)
    x = images.float() / 255
    white = clear * x + (1 - clear) * torch.maximum(x, grey(x) * 1.5 + 0.5)
    return (white + flakes + flakes.flip(2, 3)) * 255


def grey(x: Tensor) -> Tensor:
    """Brightness of ``x`` [N, C, H, W] as [N, 1, H, W]; an image of one channel is its own."""
    if x.shape[1] == 1:
        return x
    red, green, blue = (weight * x[:, [c]] for c, weight in enumerate(LUMA))
    return red + green + blue


def frost(images: Tensor, draws: Draws, image_share: float, frost_share: float, scale: float) -> Tensor:
    """image_share * x + frost_share * a random part of a random photograph of frost, shrunk to ``scale``.

    Where the photograph would be smaller than the image it is scaled to be one pixel larger.
    """
    height, width = images.shape[2:]
    photographs, sizes = frost_photographs(scale, height + 1, width + 1, images.device)
    number = draws.integers(high=len(PHOTOGRAPHS))
    free = sizes[number] - torch.tensor([height, width], device=sizes.device)
    corner = draws.uniform(2).mul_(free).long()
    everywhere = photographs.unfold(2, height, 1).unfold(3, width, 1)
    part = everywhere[number, :, corner[:, 0], corner[:, 1]].double()
    return image_share * images.double() + frost_share * part


def photograph_folder() -> Path | None:
    """The folder of the frost photographs in the installed package imagecorruptions, which is not imported."""
    spec = importlib.util.find_spec("imagecorruptions")
    folders = spec.submodule_search_locations if spec else None
    folder = Path(next(iter(folders))) / "frost" if folders else None
    return folder if folder and all((folder / name).is_file() for name in PHOTOGRAPHS) else None


@lru_cache(maxsize=4)
def frost_photographs(scale: float, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The photographs, uint8 [5, 3, H, W], each in the upper left corner, and their heights and widths [5, 2].

    They are scaled by ``scale``, or by so much more that each has at least ``height`` x ``width`` pixels.
    """
    folder = photograph_folder()
    if folder is None:
        raise UserError(FROST_MISSING)
    photographs = [_read(folder / name) for name in PHOTOGRAPHS]
    least = [max(scale, height / len(p), width / p.shape[1]) for p in photographs]
    photographs = [_scaled(p, factor) for p, factor in zip(photographs, least, strict=True)]
    sizes = torch.tensor([photograph.shape[:2] for photograph in photographs])
    together = torch.zeros(len(photographs), 3, *sizes.amax(0).tolist(), dtype=torch.uint8)
    for place, photograph in zip(together, photographs, strict=True):
        place[:, : photograph.shape[0], : photograph.shape[1]] = photograph.permute(2, 0, 1)
    return together.to(device), sizes.to(device)


def _read(path: Path) -> Tensor:
    from PIL import Image

    with Image.open(path) as photograph:
        return torch.from_numpy(np.array(photograph.convert("RGB")))


def _scaled(photograph: Tensor, scale: float) -> Tensor:
    """uint8 [H, W, 3] by linear interpolation between the four nearest pixels, without smoothing first."""
    if scale == 1:
        return photograph
    x = photograph.double()
    for dim in (0, 1):
        size = x.shape[dim]
        place = ((torch.arange(round(size * scale), dtype=torch.float64) + 0.5) / scale - 0.5).clamp(
            0, size - 1
        )
        lower = place.floor().long()
        share = (place - lower).view([-1, 1, 1] if dim == 0 else [-1, 1])
        upper = (lower + 1).clamp(max=size - 1)
        x = x.index_select(dim, lower) * (1 - share) + x.index_select(dim, upper) * share
    return x.add(0.5).floor().to(torch.uint8)


def fog(images: Tensor, draws: Draws, amount: float, decay: float) -> Tensor:
    """x + amount * plasma fractal, scaled back by brightest / (brightest + amount)."""
    height, width = images.shape[2:]
    size = 1 << (max(height, width) - 1).bit_length()
    x = images.double() / 255
    brightest = x.amax((1, 2, 3), keepdim=True)
    cloud = plasma(draws, size, decay)[:, :height, :width].unsqueeze(1)
    return (x + amount * cloud) * brightest / (brightest + amount) * 255


def plasma(draws: Draws, size: int, decay: float) -> Tensor:
    """Diamond-square heights, float64 [N, size, size] from 0 to 1; ``size`` is a power of 2, the edges wrap around.

    Each new height is the mean of four older ones plus w * U(-w, w); w begins at 100 and is divided by ``decay`` each
    time the distance of the heights is halved.
    """
    heights = torch.zeros(len(draws.indices), size, size, dtype=torch.float64, device=draws.device)
    distance, wander = size, 100.0

    def mean_and_more(total: Tensor) -> Tensor:
        return total / 4 + wander * draws.uniform(*total.shape[1:], low=-wander, high=wander)

    while distance >= 2:
        half = distance // 2
        old, middle = heights[:, ::distance, ::distance], heights[:, half::distance, half::distance]
        pairs = old + old.roll(-1, 1)
        middle.copy_(mean_and_more(pairs + pairs.roll(-1, 2)))
        in_rows = (middle + middle.roll(1, 1)) + (old + old.roll(-1, 2))
        heights[:, ::distance, half::distance] = mean_and_more(in_rows)
        in_columns = (middle + middle.roll(1, 2)) + (old + old.roll(-1, 1))
        heights[:, half::distance, ::distance] = mean_and_more(in_columns)
        distance, wander = half, wander / decay
    heights -= heights.amin((1, 2), keepdim=True)
    highest = heights.amax((1, 2), keepdim=True)
    return heights / (highest + (highest == 0))
