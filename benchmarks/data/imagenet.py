"""ImageNet-1k, streamed from class folders; and which of its classes the smaller test sets have."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.data.dataset import DataSet, Source
from benchmarks.data.image_cache import Preparation
from benchmarks.data.image_folder import Listing, list_classes
from benchmarks.data.streaming import stream
from benchmarks.errors import UserError

RESIZE = 256
SEEN = 224 / RESIZE
"""The share of a test image's shorter side that is the side of the central square which is seen."""
CLASSES = Path(__file__).with_name("imagenet_classes.txt")


@cache
def imagenet_classes(subset: str = "") -> tuple[str, ...]:
    """The WordNet ids in the order of the labels: all 1,000, or the 200 of ImageNet-A (``a``) or -R (``r``)."""
    lines = [line.split() for line in CLASSES.read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    return tuple(wnid for wnid, *sets in lines if not subset or subset in sets)


def seen(size: int) -> Preparation:
    """What is done to a test image: the central square is cut out and resized to ``size`` pixels, bicubic."""
    return Preparation(size, share=SEEN)


class ImageNet(Source):
    """1,281,167 training and 50,000 validation images in 1,000 class folders each.

    Of a test image, as by the DAMP authors, the central square with 224 / 256 of the shorter side is cut out and
    resized to 224 pixels, bicubic. Training images are kept with a shorter side of ``stored_side``, and crops are cut
    out of those; without ``recipe.min_crop_area`` the same square is seen as in a test. The authors crop training
    images out of the original files (``stored_side: 0``), and resize with TensorFlow's bicubic filter, which does not
    average over the pixels that are left out.

    Args:
        stored_side: pixels of the shorter side of decoded training images; about 340 GB for 256. 0: as they are.
    """

    files: ClassVar[str] = "imagenet"
    published_sets: ClassVar[tuple[str, ...]] = ("imagenet_c", "imagenet_c_bar")

    counts = (1_281_167, 50_000)
    in_memory = False
    num_classes = 1000
    in_channels = 3
    image_size = 224

    def __init__(
        self,
        *,
        stored_side: int = RESIZE,
        corruptions: dict[str, list[Any]] | None = None,
        corrupted: str = "generated",
        split: str = "test",
        mean: list[float] | None = None,
        std: list[float] | None = None,
        cache: Path | None = None,
    ) -> None:
        if stored_side < 0:
            raise UserError(f"dataset.stored_side={stored_side}: a number of pixels, or 0 to keep all")
        self.stored_side = stored_side
        super().__init__(
            corruptions=corruptions, corrupted=corrupted, split=split, mean=mean, std=std, cache=cache
        )

    def decoded_bytes(self) -> int:
        """As if all training images were 4 : 3, and 500 x 375 pixels (a usual size there) with ``stored_side: 0``."""
        side, (train, test) = self.stored_side or 375, self.counts
        return self.in_channels * (train * side * side * 4 // 3 + test * self.image_size**2)

    def listing(self, root: Path, part: str) -> Listing:
        """The images of ``train`` or ``val``: all class folders are there and none is empty. Labels by sorted id."""
        return list_classes(root / "imagenet" / part, imagenet_classes())

    def read(self, root: Path) -> DataSet:
        train, test, size = self.listing(root, "train"), self.listing(root, "val"), self.image_size
        return DataSet(
            stream(train, self.cache, size, Preparation(self.stored_side), share=SEEN),
            stream(test, self.cache, size, seen(size)),
            mean=(0.485, 0.456, 0.406),  # as for the authors' ResNets; their ViTs have 0.5 and 0.5
            std=(0.229, 0.224, 0.225),
        )
