"""CIFAR-10 through torchvision, with the DAMP authors' normalisation constants."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.data.corruptions import check_severities
from benchmarks.data.dataset import DataSet, Images, Source
from benchmarks.errors import UserError
from benchmarks.runtime import DATA_VARIABLE


class CIFAR10(Source):
    """50,000 training and 10,000 test images of 32 x 32 pixels in 10 classes."""

    num_classes = 10
    in_channels = 3
    image_size = 32

    def __init__(self, *, corruptions: dict[str, list[float]] | None = None) -> None:
        self.corruptions = check_severities(corruptions or {})

    def missing(self, root: Path) -> str | None:
        from torchvision.datasets import CIFAR10 as Reader

        folder = root / Reader.base_folder
        expected = [name for name, _ in (*Reader.train_list, *Reader.test_list)] + [Reader.meta["filename"]]
        absent = [name for name in expected if not (folder / name).is_file()]
        if not absent:
            return None
        return (
            f"data set cifar10 lacks {', '.join(absent)} in {folder} (set {DATA_VARIABLE} to the folder that holds "
            f"{Reader.base_folder}); get it with `weightaug run dataset=cifar10 download=true ...`, or unpack "
            f"{Reader.filename} (MD5 {Reader.tgz_md5}) from {Reader.url} there"
        )

    def load(self, root: Path, download: bool = False) -> DataSet:
        from torchvision.datasets import CIFAR10 as Reader

        problem = self.missing(root)
        if problem and not download:
            raise UserError(problem)
        try:  # torchvision checks the MD5 of the archive and of every file before it opens them
            parts = [Reader(str(root), train=train, download=bool(problem)) for train in (True, False)]
        except (RuntimeError, OSError) as error:
            detail = str(error).splitlines()[0]
            raise UserError(f"data set cifar10 in {root} can't be used: {detail}; delete the damaged file") from error
        train, test = (
            Images(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
            for part in parts
        )
        return DataSet(train, test, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
