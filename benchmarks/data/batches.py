"""Training batches: order and augmentation as pure functions of (seed, epoch), all on the data's device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cell import Recipe
from benchmarks.data.dataset import DataSet
from weightaug.random import derive_seed


def steps_per_epoch(examples: int, recipe: Recipe) -> int:
    """Batches in one epoch; the last, smaller one counts unless the recipe drops it."""
    full, rest = divmod(examples, recipe.batch_size)
    return full + (1 if rest and (not recipe.drop_last or full == 0) else 0)


def epoch_batches(data: DataSet, recipe: Recipe, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches (x normalised float32 [B, C, H, W], y int64 [B]) of one epoch, always the same for (seed, epoch).

    Random numbers are drawn on the CPU for a whole epoch at once, so that all devices see the same and nothing is
    sent to a device within the epoch. An image's augmentation depends on the image and the epoch, not on the order.
    """
    examples, device = len(data.train), data.train.images.device
    order = torch.randperm(examples, generator=_generator(seed, "order", epoch)).to(device)
    augmentation = _generator(seed, "augmentation", epoch)
    shifts = torch.randint(0, 2 * recipe.crop_padding + 1, (examples, 2), generator=augmentation).to(device)
    flips = (torch.rand(examples, generator=augmentation) < 0.5).to(device)
    for step in range(steps_per_epoch(examples, recipe)):
        chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        images = data.train.images[chosen]
        if recipe.crop_padding:
            images = crop(images, recipe.crop_padding, shifts[chosen])
        if recipe.flip:
            images = torch.where(flips[chosen].view(-1, 1, 1, 1), images.flip(-1), images)
        yield data.normalise(images), data.train.labels[chosen]


def crop(images: Tensor, padding: int, shifts: Tensor) -> Tensor:
    """Crop each image out of itself padded with zeros; ``shifts`` [N, 2] is the (top, left) corner, 0..2 padding."""
    count, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    rows = shifts[:, :1] + torch.arange(height, device=images.device)
    columns = shifts[:, 1:] + torch.arange(width, device=images.device)
    index = torch.arange(count, device=images.device).view(-1, 1, 1)
    return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _generator(seed: int, purpose: str, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, purpose, epoch))
