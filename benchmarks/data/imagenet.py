"""ImageNet-1k, streamed from class folders."""

from __future__ import annotations

from pathlib import Path

from benchmarks.data.corruptions import check_severities
from benchmarks.data.dataset import DataSet, Source
from benchmarks.data.image_cache import Preparation
from benchmarks.data.image_folder import list_classes
from benchmarks.data.streaming import stream
from benchmarks.errors import UserError
from benchmarks.runtime import DATA_VARIABLE

RESIZE = 256


class ImageNet(Source):
    """1,281,167 training and 50,000 validation images in 1,000 class folders each.

    Test images: the shorter side resized to 256, bicubic, the central 224 x 224 pixels. Training images are kept with
    a shorter side of ``stored_side``, and crops are cut out of those; without ``recipe.min_crop_area`` the central 7/8
    of the shorter side is seen, as in a test. The DAMP authors cut the central 224 / 256 of the shorter side and resize
    that, with TensorFlow's bicubic filter, and crop training images out of the original files (``stored_side: 0``).

    Args:
        stored_side: pixels of the shorter side of decoded training images; about 340 GB for 256. 0: as they are.
    """

    num_classes = 1000
    in_channels = 3
    image_size = 224

    def __init__(
        self, *, stored_side: int = RESIZE, corruptions: dict[str, list[float]] | None = None
    ) -> None:
        if stored_side < 0:
            raise UserError(f"dataset.stored_side={stored_side}: a number of pixels, or 0 to keep all")
        self.stored_side = stored_side
        self.corruptions = check_severities(corruptions or {})

    def missing(self, root: Path) -> str | None:
        folder = root / "imagenet"
        absent = [name for name in ("train", "val") if not (folder / name).is_dir()]
        if not absent:
            return None
        return (
            f"data set imagenet lacks the folders {' and '.join(absent)} (each with 1,000 class folders) in "
            f"{folder} (set {DATA_VARIABLE} to the folder that holds imagenet; ask image-net.org for access)"
        )

    def load(self, root: Path, download: bool = False) -> DataSet:
        absent = self.missing(root)
        if absent:
            raise UserError(absent)
        train = list_classes(root / "imagenet" / "train")
        test = list_classes(root / "imagenet" / "val", train.classes)
        cache, size = root / ".cache", self.image_size
        return DataSet(
            stream(train, cache, size, Preparation(self.stored_side), share=size / RESIZE),
            stream(test, cache, size, Preparation(RESIZE, crop=size)),
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )
