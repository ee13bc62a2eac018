"""Published sets of changed test images, as their authors released them: CIFAR-10-C, ImageNet-C, ImageNet-A and more.

What there is, and how it lies on disk, is declared in the config group ``files``. Its ``layout`` is one of

    arrays      <folder>/<type>.npy, uint8 [5 N, H, W, C], severity 1 first, and labels.npy    (CIFAR-10-C)
    severities  <folder>/<type>/<severity>/<class>/<image>                                     (ImageNet-C)
    classes     <folder>/<class>/<image>: one changed set, without types and severities        (ImageNet-A)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.data.corruptions import SEVERITIES
from benchmarks.data.dataset import Images
from benchmarks.data.decode import decoded
from benchmarks.data.files.checks import Recorded, check
from benchmarks.data.files.declared import FileSet, file_set
from benchmarks.data.image_folder import list_classes
from benchmarks.errors import UserError, one_line
from benchmarks.terminal import warn

LABELS = "labels"


@cache
def types_of(name: str) -> dict[str, tuple[str, str | None]]:
    """Type of corruption -> (its file or folder below the data folder, its published MD5) in one published set."""
    parts = [part for download in file_set(name).downloads for part in download.parts.items()]
    named = {Path(part).stem: (part, value if isinstance(value, str) else None) for part, value in parts}
    return {kind: named[kind] for kind in named if kind != LABELS}


def sets_of(names: Sequence[str], types: Iterable[str]) -> tuple[str, ...]:
    """Which of the published sets ``names`` are needed for ``types``; an error for a type that none of them has."""
    found = {kind: name for name in reversed(names) for kind in types_of(name)}
    lacking = [kind for kind in types if kind not in found]
    if lacking:
        raise UserError(
            f"dataset.corrupted=published: nobody published {', '.join(lacking)} of this data set (published: "
            f"{', '.join(names) or 'none'}); take these types out of dataset.corruptions, or set it to generated"
        )
    return tuple(name for name in names if name in {found[kind] for kind in types})


class PublishedCorruptions(Mapping[tuple[str, int], Tensor]):
    """Published corrupted test images by (type, severity): uint8 [N, C, H, W], in the order of the test labels.

    Nothing is read before it is asked for: arrays are mapped into memory, folders decoded once and then mapped.

    Args:
        names: the published sets to read from.
        types: the types wanted, in their order.
        root: the data folder.
        test: the test images, for their size, labels and device; the published labels are compared with theirs.
        cache: where decoded folders are kept.

    Raises:
        UserError: on reading: a file that is not the published one, or images and labels that do not fit.
    """

    def __init__(
        self,
        names: Sequence[str],
        types: Iterable[str],
        root: Path,
        test: Images,
        cache: Path,
    ) -> None:
        self.root, self.cache = root, cache
        self.labels, self.shape, self.device = test.labels.cpu(), test.images.shape[1:], test.images.device
        self._sets = {
            kind: (file_set(name), *types_of(name)[kind]) for kind in types for name in sets_of(names, [kind])
        }
        self._arrays: dict[str, np.ndarray] = {}
        self._folders: dict[Path, tuple[Tensor, Tensor]] = {}

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return ((kind, severity) for kind in self._sets for severity in SEVERITIES)

    def __len__(self) -> int:
        return len(self._sets) * len(SEVERITIES)

    def __getitem__(self, key: tuple[str, int]) -> Tensor:
        return self.images(*key)

    def images(self, kind: str, severity: int, places: Tensor | None = None) -> Tensor:
        """The images of one type and severity, or those at ``places`` (int64 [n]) in the test set alone."""
        if severity not in SEVERITIES:
            raise KeyError((kind, severity))
        files, part, md5 = self._sets[kind]
        read = self._from_array if files.layout == "arrays" else self._from_folder
        places = torch.arange(len(self.labels)) if places is None else places.cpu()
        return read(files, part, md5, severity, places).to(self.device)

    def _from_array(
        self, files: FileSet, part: str, md5: str | None, severity: int, places: Tensor
    ) -> Tensor:
        channels, height, width = self.shape
        shape = (len(SEVERITIES) * len(self.labels), height, width, channels)
        rows = (severity - 1) * len(self.labels) + places
        return (
            torch.from_numpy(self._array(files, part, md5, shape)[rows.numpy()])
            .permute(0, 3, 1, 2)
            .contiguous()
        )

    def _array(self, files: FileSet, part: str, md5: str | None, shape: tuple[int, ...]) -> np.ndarray:
        """The array of one type, checked when it is first opened, as are the labels beside it."""
        if part not in self._arrays:
            own_labels = f"{files.folder}/{LABELS}.npy"
            if own_labels not in self._arrays:
                published = {p: v for d in files.downloads for p, v in d.parts.items()}.get(own_labels)
                labels = self._open(files, own_labels, published if isinstance(published, str) else None)
                expected = self.labels.numpy()
                if labels.shape != (shape[0],) or any(
                    not np.array_equal(expected, some) for some in labels.reshape(len(SEVERITIES), -1)
                ):
                    raise UserError(f"{self.root / own_labels} holds other labels than the test images have")
                self._arrays[own_labels] = labels
            array = self._open(files, part, md5)
            if array.shape != shape or array.dtype != np.uint8:
                raise UserError(
                    f"{self.root / part} holds {array.dtype} {list(array.shape)}, expected uint8 {list(shape)}; get it "
                    f"again from {files.page}"
                )
            self._arrays[part] = array
        return self._arrays[part]

    def _open(self, files: FileSet, part: str, md5: str | None) -> np.ndarray:
        path = self.root / part
        try:
            if md5 is not None:
                check(path, ("md5", md5), files.name)
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"{path} can't be read: {one_line(error)}; get it again from {files.page}"
            ) from None
        if md5 is None:
            try:
                Recorded(self.root).check(self.root, part)
            except OSError as error:
                warn(f"the SHA-256 of {path} can't be recorded: {one_line(error)}")
        return array

    def _from_folder(
        self, files: FileSet, part: str, md5: str | None, severity: int, places: Tensor
    ) -> Tensor:
        """The images of one folder: the n-th test image of a class is the n-th of the class's folder."""
        folder = self.root / part / str(severity)
        if folder not in self._folders:
            listing = list_classes(folder)
            order = torch.argsort(self.labels, stable=True)
            if not torch.equal(self.labels[order], listing.labels):
                raise UserError(
                    f"{folder} holds {len(listing):,} images of {len(listing.classes)} classes, not as many of each "
                    f"class as the {len(self.labels):,} test images; get it again from {files.page}"
                )
            images = decoded(listing, self.cache, channels=self.shape[0])
            if images.shape[1:] != self.shape:
                raise UserError(
                    f"{folder}: the images are {list(images.shape[1:])}, expected {list(self.shape)}"
                )
            self._folders[folder] = images, torch.argsort(order)
        images, positions = self._folders[folder]
        return images[positions[places]]
