"""A made-up ImageNet: JPEG files in class folders, so that all that is done with ImageNet's can run without them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset

from benchmarks.data.dataset import DataSet
from benchmarks.data.image_folder import Listing, list_classes
from benchmarks.data.imagenet import SEEN, ImageNet
from benchmarks.data.synthetic import class_colours, pictures
from benchmarks.errors import UserError
from benchmarks.runtime import cores
from benchmarks.terminal import note
from weightaug.random import derive_seed

VERSION = 1
"""Raise it when the images change."""
GRAIN = 2
"""The noise has blocks of so many pixels, smoothed, so that files are about as large as photographs."""
QUALITY = 94
PARTS = ("train", "val")


class SyntheticImageNet(ImageNet):
    """Pictures as those of ``dataset=synthetic``, half their class's pattern and half noise, as JPEG files.

    They lie in the cache folder and are made there once, a function of the arguments alone. Their sizes vary as
    ImageNet's do: the shorter side is 0.75 to 2.25 times that of the stored image, the longer one up to 1.5 times as
    long, three of four are wider than high. The classes take turns, so that each has the same number but for one.

    Args:
        size: pixels along each side of what the network sees; 224 for ImageNet's.
        classes: how many; at least 2.
        train_images, test_images: how many files of each; at least one a class.
        images_seed: of the pictures.
        stored_side: as ImageNet's; None: 256 / 224 of ``size``.
        others: see :class:`benchmarks.data.dataset.Source`.
    """

    files: ClassVar[str] = ""
    published_sets: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        size: int = 64,
        classes: int = 10,
        train_images: int = 512,
        test_images: int = 128,
        images_seed: int = 0,
        stored_side: int | None = None,
        corruptions: dict[str, list[Any]] | None = None,
        split: str = "test",
        mean: list[float] | None = None,
        std: list[float] | None = None,
        cache: Path | None = None,
    ) -> None:
        if size < 8:
            raise UserError(f"dataset.size={size}: must be at least 8")
        if classes < 2:
            raise UserError(f"dataset.classes={classes}: must be at least 2")
        for name, count in (("train_images", train_images), ("test_images", test_images)):
            if count < classes:
                raise UserError(f"dataset.{name}={count}: must be at least one for each of {classes} classes")
        self.num_classes, self.image_size, self.images_seed = classes, size, images_seed
        self.counts = dict(zip(PARTS, (train_images, test_images), strict=True))
        self.resized = round(size / SEEN)
        super().__init__(
            stored_side=self.resized if stored_side is None else stored_side,
            corruptions=corruptions,
            split=split,
            mean=mean,
            std=std,
            cache=cache,
        )

    @property
    def folder(self) -> Path:
        key = [VERSION, self.num_classes, self.image_size, self.counts, self.images_seed]
        name = hashlib.blake2b(json.dumps(key).encode(), digest_size=8).hexdigest()
        return self.cache / "imagenet_synthetic" / name

    def listing(self, root: Path, part: str) -> Listing:
        return list_classes(self.folder / part, [class_name(label) for label in range(self.num_classes)])

    def read(self, root: Path) -> DataSet:
        try:
            self._make()
        except OSError as error:
            raise UserError(
                f"made-up images can't be written to {self.folder}: {error.strerror}; choose another cache folder"
            ) from None
        return super().read(root)

    def _make(self) -> None:
        """Write the class folders that are missing; whoever comes second waits and finds them."""
        folders = _Folders(self)
        if not len(folders):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            folders = _Folders(self)
            if len(folders):
                note(f"making {sum(self.counts.values()):,} images in {self.folder}, once")
            processes = min(cores(), len(folders)) if sum(self.counts.values()) > 1000 else 0
            for failed in DataLoader(folders, batch_size=None, num_workers=processes):
                if failed:
                    raise OSError(0, failed)

    def picture(self, part: str, number: int, colours: Tensor) -> Tensor:
        """One of the images, uint8 [3, height, width]; ``colours`` are those of all classes."""
        draw = torch.Generator().manual_seed(derive_seed(self.images_seed, part, number))
        shorter, longer, wide = torch.rand(3, generator=draw).tolist()
        height = round(self.resized * (0.75 + 1.5 * shorter))
        width = round(height * (1 + 0.5 * longer))
        if wide > 0.75:
            height, width = width, height
        grain = torch.rand(1, 3, -(-height // GRAIN), -(-width // GRAIN), generator=draw)
        noise = interpolate(grain, size=(height, width), mode="bilinear")
        return pictures(colours[number % self.num_classes].unsqueeze(0), noise)[0]


def class_name(label: int) -> str:
    return f"class{label:04}"


class _Folders(Dataset[str]):
    """The class folders that are missing, as the items of a loader, so that its processes write them."""

    def __init__(self, source: SyntheticImageNet) -> None:
        self.source = source
        draw = torch.Generator().manual_seed(derive_seed(source.images_seed, "colours"))
        self.colours = class_colours(source.num_classes, 3, draw)
        self.missing = [
            (part, label)
            for part in PARTS
            for label in range(source.num_classes)
            if not (source.folder / part / class_name(label)).is_dir()
        ]

    def __len__(self) -> int:
        return len(self.missing)

    def __getitem__(self, place: int) -> str:
        """Write one folder, whole or not at all; why it can't be written, or nothing."""
        part, label = self.missing[place]
        target = self.source.folder / part / class_name(label)
        partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            for number in range(label, self.source.counts[part], self.source.num_classes):
                pixels = self.source.picture(part, number, self.colours).permute(1, 2, 0).numpy()
                Image.fromarray(pixels).save(partial / f"{number:07}.jpg", quality=QUALITY)
            partial.rename(target)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            return str(error.strerror)
        return ""
