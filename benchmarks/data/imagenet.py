"""ImageNet-1k as class folders: its listing, and which of its classes the smaller test sets have.

Known to the harness so far, so that plans and errors can name it; training on it needs images streamed from disk.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import ClassVar

from benchmarks.data.dataset import DataSet, Source
from benchmarks.data.image_folder import Listing, list_classes
from benchmarks.errors import UserError

CLASSES = Path(__file__).with_name("imagenet_classes.txt")


@cache
def imagenet_classes(subset: str = "") -> tuple[str, ...]:
    """The WordNet ids in the order of the labels: all 1,000, or the 200 of ImageNet-A (``a``) or -R (``r``)."""
    lines = [line.split() for line in CLASSES.read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    return tuple(wnid for wnid, *sets in lines if not subset or subset in sets)


class ImageNet(Source):
    """1,281,167 training and 50,000 validation images, each in 1,000 class folders named by WordNet id."""

    files: ClassVar[str] = "imagenet"
    published_sets: ClassVar[tuple[str, ...]] = ("imagenet_c", "imagenet_c_bar")

    own_mean: ClassVar[tuple[float, ...]] = (
        0.485,
        0.456,
        0.406,
    )  # of the ResNets; for ViTs 0.5 and 0.5 are set
    own_std: ClassVar[tuple[float, ...]] = (0.229, 0.224, 0.225)

    num_classes = 1000
    in_channels = 3
    image_size = 224

    def missing(self, root: Path) -> str | None:
        return (
            super().missing(root) or f"data set imagenet is in {root}, but this version can't stream it yet"
        )

    def listing(self, root: Path, part: str) -> Listing:
        """The images of ``train`` or ``val``: all class folders are there and none is empty. Labels by sorted id."""
        return list_classes(root / "imagenet" / part, imagenet_classes())

    def read(self, root: Path) -> DataSet:
        raise UserError(str(self.missing(root)))
