"""What a data set is to the harness: uint8 images, on the device or streamed to it, read through one interface."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from benchmarks.data.resampling import resized_crop


class ImageSet(Protocol):
    """Images with labels int64 [N]. :class:`Images` are on the device, others are streamed to it."""

    @property
    def labels(self) -> Tensor: ...

    @property
    def sizes(self) -> Tensor:
        """Height and width of every image before it is cut to the size that is read, int64 [N, 2] on the CPU."""
        ...

    def __len__(self) -> int: ...

    def to(self, device: str) -> ImageSet: ...

    def __getitem__(self, chosen: Tensor) -> ImageSet:
        """The images at the places ``chosen`` int64 [n], in that order."""
        ...

    def read(
        self, order: Tensor, batch_size: int, boxes: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of (uint8 images [B, C, H, W], labels [B]), on the device.

        Args:
            order: places in the set, int64 [n] on the CPU; the last batch may be smaller.
            batch_size: B.
            boxes: what to cut out of each image and resize to H x W, int64 [n, 4] in the order of ``order``:
                top, left, height, width.
        """
        ...


@dataclass(frozen=True)
class Images:
    """Images as uint8 [N, C, H, W] with labels int64 [N]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sizes(self) -> Tensor:
        return torch.tensor(self.images.shape[2:]).expand(len(self), 2)

    def to(self, device: str) -> Images:
        return Images(self.images.to(device), self.labels.to(device))

    def __getitem__(self, chosen: Tensor) -> Images:
        return Images(self.images[chosen], self.labels[chosen])

    def read(
        self, order: Tensor, batch_size: int, boxes: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        order = order.to(self.labels.device)
        boxes = None if boxes is None else boxes.to(self.labels.device)
        for start in range(0, len(order), batch_size):
            here = slice(start, start + batch_size)
            images = self.images[order[here]]
            if boxes is not None:
                images = resized_crop(images, boxes[here])
            yield images, self.labels[order[here]]


@dataclass(frozen=True)
class DataSet:
    """A loaded data set: the training and the test images and how to normalise them."""

    train: ImageSet
    test: ImageSet
    mean: tuple[float, ...]  # per channel, on the pixel scale 0..1
    std: tuple[float, ...]

    def to(self, device: str) -> DataSet:
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] to float32 with the data set's mean and standard deviation taken out."""
        return self.standardise(images.float() / 255)

    def standardise(self, pixels: Tensor) -> Tensor:
        """As :meth:`normalise`, of pixels on the scale 0 to 1, differentiable."""
        mean = torch.tensor(self.mean, device=pixels.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, -1, 1, 1)
        return (pixels - mean) / std

    def pixels(self, inputs: Tensor) -> Tensor:
        """The uint8 images that :meth:`normalise` made ``inputs`` of; the nearest ones if there are none."""
        mean = torch.tensor(self.mean, device=inputs.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=inputs.device).view(1, -1, 1, 1)
        return ((inputs.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


class Source:
    """Where a data set comes from. A subclass is what a config's ``_target_`` names.

    ``corruptions`` maps a corruption's name to its parameter at severities 1 to 5
    (see :mod:`benchmarks.data.corruptions`).
    """

    num_classes: ClassVar[int]
    in_channels: ClassVar[int]
    image_size: ClassVar[int]
    corruptions: dict[str, list[float]]

    def missing(self, root: Path) -> str | None:
        """What of the files is not there, where it was looked for and how to get it; None if all is."""
        return None

    def load(self, root: Path, download: bool = False) -> DataSet:
        """Read the data set from ``root``."""
        raise NotImplementedError
