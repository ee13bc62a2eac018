"""Made-up images of any size and number, where no data is needed: to count what networks cost, and for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.data.dataset import DataSet, Images, Source
from benchmarks.errors import UserError

PATTERN = 4  # a class's pattern has so many blocks along each side


def class_colours(classes: int, channels: int, generator: torch.Generator) -> Tensor:
    """The patterns of the classes, [classes, channels, 4, 4] from 0 to 1."""
    return torch.rand(classes, channels, PATTERN, PATTERN, generator=generator)


def pictures(colours: Tensor, noise: Tensor) -> Tensor:
    """Half pattern and half noise: uint8 [n, C, H, W] of ``colours`` [n, C, 4, 4] and ``noise`` [n, C, H, W]."""
    return ((interpolate(colours, size=noise.shape[2:]) + noise) * 127.5).round().to(torch.uint8)


class Synthetic(Source):
    """Images that are half their class's pattern, 4 x 4 blocks of random colour, and half uniform noise.

    The same on every machine. The classes take turns, so that each has the same number of images but for one.

    Args:
        size: pixels along each side.
        channels: 1 or more.
        classes: how many; at least 2.
        train_images, test_images: how many of each, all held in memory.
    """

    def __init__(
        self,
        *,
        size: int = 32,
        channels: int = 3,
        classes: int = 10,
        train_images: int = 1024,
        test_images: int = 256,
        corruptions: dict[str, list[Any]] | None = None,
        split: str = "test",
    ) -> None:
        sizes = {"size": size, "channels": channels, "train_images": train_images, "test_images": test_images}
        for name, value in sizes.items():
            if value < 1:
                raise UserError(f"dataset.{name}={value}: must be at least 1")
        if classes < 2:
            raise UserError(f"dataset.classes={classes}: must be at least 2")
        self.num_classes, self.in_channels, self.image_size = classes, channels, size
        self.train_images, self.test_images = train_images, test_images
        self.counts = (train_images, test_images)
        super().__init__(corruptions=corruptions, split=split)

    def read(self, root: Path) -> DataSet:
        generator = torch.Generator().manual_seed(0)
        colours = class_colours(self.num_classes, self.in_channels, generator)
        return DataSet(
            train=self._images(self.train_images, colours, generator),
            test=self._images(self.test_images, colours, generator),
            mean=(0.5,) * self.in_channels,
            std=(0.25,) * self.in_channels,
        )

    def _images(self, count: int, colours: Tensor, generator: torch.Generator) -> Images:
        labels = torch.arange(count) % self.num_classes
        noise = torch.rand(count, self.in_channels, self.image_size, self.image_size, generator=generator)
        return Images(pictures(colours[labels], noise), labels)
