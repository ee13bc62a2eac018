"""What a recipe does to the training images, batched on their device, with random numbers drawn on the CPU.

The order is: random resized crop or crop with padding, flip, RandAugment, normalisation, MixUp.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cell import Recipe
from benchmarks.data.dataset import ImageSet
from benchmarks.data.randaugment import RandAugment
from benchmarks.data.resampling import random_boxes
from weightaug.random import derive_seed
from weightaug.transfer import send


def generator(seed: int, purpose: str, epoch: int) -> torch.Generator:
    """The random numbers of one purpose in one epoch; a new purpose leaves those of the others as they are."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, epoch))


class Augmentation:
    """All that is drawn for one epoch, image by image: a function of the seed, the epoch and the image's place.

    Args:
        images: the training set.
        order: the places in it that the epoch sees, int64 [n].
        device: where the batches are.
    """

    def __init__(
        self, recipe: Recipe, images: ImageSet, order: Tensor, seed: int, epoch: int, device: torch.device
    ) -> None:
        self.recipe, self.order, examples = recipe, order, len(images)
        draw = generator(seed, "augmentation", epoch)
        shifts = torch.randint(0, 2 * recipe.crop_padding + 1, (examples, 2), generator=draw)
        flips = torch.rand(examples, generator=draw) < 0.5
        self.shifts, self.flips = send(shifts[order], device), send(flips[order], device)
        self.boxes: Tensor | None = None
        """What is cut out of each image as it is read, in the order of ``order``."""
        if recipe.min_crop_area is not None:
            draw = generator(seed, "resized crop", epoch)
            self.boxes = random_boxes(
                images.sizes, recipe.min_crop_area, draw, recipe.crop_boxes, recipe.min_crop_covered
            )[order]
        self.randaugment: RandAugment | None = None
        if recipe.randaugment != "none":
            self.randaugment = RandAugment(
                recipe.randaugment,
                recipe.randaugment_layers,
                recipe.randaugment_magnitude,
                examples,
                generator(seed, "randaugment", epoch),
            )

    def __call__(self, images: Tensor, here: slice) -> Tensor:
        """The batch at the positions ``here`` of the order: uint8 images [n, C, H, W] augmented."""
        if self.recipe.crop_padding:
            images = crop(images, self.recipe.crop_padding, self.shifts[here])
        if self.recipe.flip:
            images = torch.where(self.flips[here].view(-1, 1, 1, 1), images.flip(-1), images)
        if self.randaugment is not None:
            images = self.randaugment(images, self.order[here])
        return images


def crop(images: Tensor, padding: int, shifts: Tensor) -> Tensor:
    """Crop each image out of itself padded with zeros; ``shifts`` [N, 2] is the (top, left) corner, 0..2 padding."""
    count, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    rows = shifts[:, :1] + torch.arange(height, device=images.device)
    columns = shifts[:, 1:] + torch.arange(width, device=images.device)
    index = torch.arange(count, device=images.device).view(-1, 1, 1)
    return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def mixing_shares(recipe: Recipe, steps: int, seed: int, epoch: int) -> list[float] | None:
    """The first image's share in the mixtures of each of an epoch's batches; None without MixUp.

    The DAMP authors' share is the same always (0.8 in their configs); Zhang et al. (arXiv 1710.09412) draw it from
    Beta(alpha, alpha), once for each batch.
    """
    if recipe.mixup_lambda is not None:
        return [recipe.mixup_lambda] * steps
    if recipe.mixup_alpha is None:
        return None
    draw = np.random.default_rng(derive_seed(seed, "mixup", epoch))
    return [float(share) for share in draw.beta(recipe.mixup_alpha, recipe.mixup_alpha, steps)]


def mix(
    x: Tensor, y: Tensor, share: float, classes: int, partner: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """``share`` of each example and 1 - share of its partner, the batch in reverse, for inputs and labels alike.

    The DAMP authors reverse the part of the batch that a GPU has before it is split into sub-batches; here that is
    the whole batch.

    Args:
        x: inputs [N, ...].
        y: class numbers [N].
        partner: inputs and class numbers of the part of the batch that this part, turned round, is mixed with; by
            default (x, y), the whole batch.

    Returns:
        Mixed inputs [N, ...] and the labels' shares, float32 [N, classes].
    """
    labels = F.one_hot(y, classes).float()
    if partner is None:
        others, other_labels = x, labels
    else:
        others, other_labels = partner[0], F.one_hot(partner[1], classes).float()
    return share * x + (1 - share) * others.flip(0), share * labels + (1 - share) * other_labels.flip(0)
