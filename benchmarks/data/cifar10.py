"""CIFAR-10 through torchvision, with the DAMP authors' normalisation constants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.data.corruptions import check_severities
from benchmarks.data.dataset import DataSet, Images, Source
from benchmarks.errors import UserError, one_line
from benchmarks.runtime import DATA_VARIABLE


class CIFAR10(Source):
    """50,000 training and 10,000 test images of 32 x 32 pixels in 10 classes."""

    num_classes = 10
    in_channels = 3
    image_size = 32

    def __init__(self, *, corruptions: dict[str, list[Any]] | None = None) -> None:
        self.corruptions = check_severities(corruptions or {})

    def missing(self, root: Path) -> str | None:
        from torchvision import datasets

        absent = [path.name for path in _files(root) if not path.is_file()]
        if not absent:
            return None
        archive = datasets.CIFAR10
        return (
            f"data set cifar10 lacks {', '.join(absent)} in {root / archive.base_folder} (set {DATA_VARIABLE} to the "
            f"folder that holds {archive.base_folder}); get it with `weightaug run dataset=cifar10 download=true`, or "
            f"unpack {archive.filename} (MD5 {archive.tgz_md5}) from {archive.url} there"
        )

    def load(self, root: Path, download: bool = False) -> DataSet:
        from torchvision import datasets
        from torchvision.datasets.utils import check_integrity

        absent = self.missing(root)
        if absent and not download:
            raise UserError(absent)
        damaged = [
            path.name
            for path, md5 in _files(root).items()
            if path.is_file() and not check_integrity(path, md5)
        ]
        if damaged:
            raise UserError(
                f"data set cifar10 in {root}: {', '.join(damaged)} differs from the published MD5; delete it and "
                "fetch it again with download=true"
            )
        try:  # torchvision checks the MD5 of the archive before it unpacks it
            parts = [
                datasets.CIFAR10(str(root), train=train, download=absent is not None)
                for train in (True, False)
            ]
        except (RuntimeError, OSError) as error:
            raise UserError(f"data set cifar10 can't be fetched into {root}: {one_line(error)}") from error
        train, test = (
            Images(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
            for part in parts
        )
        return DataSet(train, test, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))


def _files(root: Path) -> dict[Path, str]:
    """Every file of the data set with its published MD5."""
    from torchvision import datasets

    archive = datasets.CIFAR10
    listed = [*archive.train_list, *archive.test_list, [archive.meta["filename"], archive.meta["md5"]]]
    return {root / archive.base_folder / name: md5 for name, md5 in listed}
