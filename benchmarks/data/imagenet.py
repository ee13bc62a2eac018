"""ImageNet-1k: known to the harness, so that plans and errors can name it; reading it is not built yet."""

from __future__ import annotations

from pathlib import Path

from benchmarks.data.dataset import DataSet, Source
from benchmarks.errors import UserError
from benchmarks.runtime import DATA_VARIABLE


class ImageNet(Source):
    """1,281,167 training and 50,000 validation images in 1,000 class folders each."""

    num_classes = 1000
    in_channels = 3
    image_size = 224

    def __init__(self) -> None:
        self.corruptions = {}

    def missing(self, root: Path) -> str | None:
        folder = root / "imagenet"
        absent = [name for name in ("train", "val") if not (folder / name).is_dir()]
        if absent:
            return (
                f"data set imagenet lacks the folders {' and '.join(absent)} (each with 1,000 class folders) in "
                f"{folder} (set {DATA_VARIABLE} to the folder that holds imagenet; ask image-net.org for access)"
            )
        return f"data set imagenet is in {folder}, but this version can't stream it yet"

    def load(self, root: Path, download: bool = False) -> DataSet:
        raise UserError(str(self.missing(root)))
