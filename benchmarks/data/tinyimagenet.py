"""TinyImageNet: 100,000 training images of 64 x 64 pixels in 200 classes; the 10,000 validation images test."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import ClassVar

import torch

from benchmarks.data.dataset import DataSet, Images, Source
from benchmarks.data.decode import decoded
from benchmarks.data.image_folder import Listing, list_classes
from benchmarks.errors import UserError

PER_CLASS = {"train": 500, "val": 50}


class TinyImageNet(Source):
    """Read from the unpacked archive. Labels are the positions of the sorted WordNet ids; grey images become colour.

    The constants are the DAMP authors', there on the scale 0..255.
    """

    files: ClassVar[str] = "tinyimagenet"
    published_sets: ClassVar[tuple[str, ...]] = ("tinyimagenet_c",)

    counts = (100_000, 10_000)
    num_classes = 200
    in_channels = 3
    image_size = 64

    def decoded_bytes(self) -> int:
        return sum(self.counts) * self.in_channels * self.image_size**2

    def read(self, root: Path) -> DataSet:
        folder = root / "tiny-imagenet-200"
        train = list_classes(folder / "train", below="images")
        parts = {"train": train, "val": _validation(folder / "val", train.classes)}
        images = {}
        for name, listing in parts.items():
            counts = Counter(listing.labels.tolist())
            if len(counts) != self.num_classes or set(counts.values()) != {PER_CLASS[name]}:
                raise UserError(
                    f"{folder / name} holds {len(listing):,} images of {len(counts)} classes, expected "
                    f"{PER_CLASS[name]} of each of {self.num_classes}; get it again with `weightaug data fetch "
                    "tinyimagenet`"
                )
            pixels = decoded(listing, self.cache, channels=3)
            if pixels.shape[-1] != self.image_size:
                raise UserError(f"{folder / name}: the images have {pixels.shape[-1]} pixels a side, not 64")
            images[name] = Images(pixels, listing.labels)
        mean, std = (122.4786, 114.2755, 101.3963), (70.4924, 68.5679, 71.8127)
        return DataSet(
            images["train"], images["val"], tuple(m / 255 for m in mean), tuple(s / 255 for s in std)
        )


def _validation(folder: Path, classes: tuple[str, ...]) -> Listing:
    """The validation images, whose classes stand in a list beside them."""
    annotations = folder / "val_annotations.txt"
    try:
        rows = [line.split("\t")[:2] for line in annotations.read_text(encoding="utf-8").splitlines() if line]
        pairs = sorted((f"images/{name}", classes.index(wnid)) for name, wnid in rows)
    except OSError as error:
        raise UserError(f"{annotations} can't be read: {error.strerror}") from None
    except ValueError:
        raise UserError(f"{annotations} names a class that has no training images") from None
    return Listing(folder, classes, tuple(f for f, _ in pairs), torch.tensor([label for _, label in pairs]))
