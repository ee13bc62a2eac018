"""Training batches: order and augmentation as pure functions of (seed, epoch), all on the data's device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.cell import Recipe
from benchmarks.data.augmentation import Augmentation, generator, mix, mixing_shares
from benchmarks.data.dataset import DataSet

if TYPE_CHECKING:
    from benchmarks.training.sharing import Sharing


def steps_per_epoch(examples: int, recipe: Recipe) -> int:
    """Batches in one epoch; the last, smaller one counts unless the recipe drops it, or it is the only one."""
    full, rest = divmod(examples, recipe.batch_size)
    return full + (1 if rest and (not recipe.drop_last or full == 0) else 0)


def epoch_batches(
    data: DataSet,
    recipe: Recipe,
    seed: int,
    epoch: int,
    classes: int | None = None,
    start: int = 0,
    sharing: Sharing | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of one epoch, always the same for (seed, epoch), whatever the device and the loaders.

    x is normalised float32 [B, C, H, W]; y is int64 [B], with MixUp float32 [B, classes].

    Random numbers are drawn on the CPU for a whole epoch at once, so that all devices see the same. An image's
    augmentation depends on the image and the epoch, not on the order.

    Args:
        classes: how many there are; needed for MixUp.
        start: how many batches to leave out; the others stay as they are.
        sharing: gives this process its rows of every batch, which are all that is read. With MixUp the processes must
            ask for their batches at the same time, for an image's partner may be with another one.
    """
    steps = steps_per_epoch(len(data.train), recipe)
    if start >= steps:
        return
    order = torch.randperm(len(data.train), generator=generator(seed, "order", epoch))
    order = order[start * recipe.batch_size : steps * recipe.batch_size]
    size, mirrored = recipe.batch_size, None
    if sharing is not None and sharing.processes.count > 1:
        order = torch.cat([batch[sharing.own(len(batch))] for batch in order.split(size)])
        own = sharing.own(size)
        size, mirrored = own.stop - own.start, sharing.processes.mirrored
    augment = Augmentation(recipe, data.train, order, seed, epoch, data.train.labels.device)
    shares = mixing_shares(recipe, steps, seed, epoch)
    for batch, (images, labels) in enumerate(data.train.read(order, size, augment.boxes)):
        here = slice(batch * size, (batch + 1) * size)
        images = augment(images, here)
        x = data.normalise(images)
        if shares is None:
            yield x, labels
        elif classes is None:
            raise ValueError("MixUp mixes the labels too: tell epoch_batches the number of classes")
        else:
            partner = None if mirrored is None else (data.normalise(mirrored(images)), mirrored(labels))
            yield mix(x, labels, shares[start + batch], classes, partner)
