"""What a data set is to the harness: uint8 tensors that live on the device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """Images as uint8 [N, C, H, W] with labels int64 [N]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str) -> Images:
        return Images(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class DataSet:
    """A loaded data set: the training and the test images and how to normalise them."""

    train: Images
    test: Images
    mean: tuple[float, ...]  # per channel, on the pixel scale 0..1
    std: tuple[float, ...]

    def to(self, device: str) -> DataSet:
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] to float32 with the data set's mean and standard deviation taken out."""
        mean = torch.tensor(self.mean, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, -1, 1, 1)
        return (images.float() / 255 - mean) / std

    def pixels(self, inputs: Tensor) -> Tensor:
        """The uint8 images that :meth:`normalise` made ``inputs`` of; the nearest ones if there are none."""
        mean = torch.tensor(self.mean, device=inputs.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=inputs.device).view(1, -1, 1, 1)
        return ((inputs.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


class Source:
    """Where a data set comes from. A subclass is what a config's ``_target_`` names.

    ``corruptions`` maps a corruption's name to its parameters at severities 1 to 5
    (see :mod:`benchmarks.data.corruptions`).
    """

    num_classes: ClassVar[int]
    in_channels: ClassVar[int]
    image_size: ClassVar[int]
    corruptions: dict[str, list[Any]]

    def missing(self, root: Path) -> str | None:
        """What of the files is not there, where it was looked for and how to get it; None if all is."""
        return None

    def load(self, root: Path, download: bool = False) -> DataSet:
        """Read the data set from ``root``."""
        raise NotImplementedError
