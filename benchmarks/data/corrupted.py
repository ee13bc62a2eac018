"""Published sets of changed test images, as their authors released them: CIFAR-10-C, ImageNet-C, ImageNet-A and more.

What there is, and how it lies on disk, is declared in the config group ``files``. Its ``layout`` is one of

    arrays      <folder>/<type>.npy, uint8 [5 N, H, W, C], severity 1 first, and labels.npy    (CIFAR-10-C)
    severities  <folder>/<type>/<severity>/<class>/<image>                                     (ImageNet-C)
    classes     <folder>/<class>/<image>: one changed set, without types and severities        (ImageNet-A)

Images are used as they are stored, but for ImageNet-C-bar (``central`` in its declaration). Like ImageNet-C's they are
stored ready for use, 224 x 224; the DAMP authors' evaluation puts ImageNet-C's into the network as they are, but sends
C-bar's through the transform of the clean test images: the central 224 / 256 of the side, 196 pixels, are cut out and
enlarged to 224 again, bicubic. The DAMP paper's C-bar errors were measured so, and so are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.data.corruptions import SEVERITIES
from benchmarks.data.decode import decode, decoded
from benchmarks.data.files.checks import Recorded, check
from benchmarks.data.files.declared import FileSet, file_set
from benchmarks.data.image_folder import Listing, list_classes
from benchmarks.data.resampling import central_boxes, resized_crop
from benchmarks.errors import UserError, one_line
from benchmarks.terminal import warn

LABELS = "labels"
KEPT_BYTES = 1 << 30
"""Folders of images that take more than this are not kept decoded: ImageNet-C would be 7.5 GB a severity."""


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

    Nothing is read before it is asked for: arrays are mapped into memory, small folders decoded once and then mapped.

    Args:
        names: the published sets to read from.
        types: the types wanted, in their order.
        root: the data folder.
        labels: of the test images, int64 [N].
        shape: of one of them, (C, H, W).
        cache: where decoded folders are kept.

    Raises:
        UserError: on reading: a file that is not the published one, or images and labels that do not fit.
    """

    def __init__(
        self,
        names: Sequence[str],
        types: Iterable[str],
        root: Path,
        labels: Tensor,
        shape: tuple[int, int, int],
        cache: Path,
    ) -> None:
        self.root, self.cache, self.labels, self.shape = root, cache, labels.cpu(), shape
        self._sets = {
            kind: (file_set(name), *types_of(name)[kind]) for kind in types for name in sets_of(names, [kind])
        }
        self._arrays: dict[str, np.ndarray] = {}
        self._folders: dict[str, tuple[Listing, Tensor, Tensor | None]] = {}

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return ((kind, severity) for kind in self._sets for severity in SEVERITIES)

    def __len__(self) -> int:
        return len(self._sets) * len(SEVERITIES)

    def __getitem__(self, key: tuple[str, int]) -> Tensor:
        return self.read(*key, torch.arange(len(self.labels)))

    def check(self) -> None:
        """Open all that there is and read one image of each, so that damage is found before the training, not after."""
        for kind, severity in self:
            self.read(kind, severity, torch.tensor([0]))

    def read(self, kind: str, severity: int, places: Tensor) -> Tensor:
        """The test images at ``places`` int64 [n] with one corruption: uint8 [n, C, H, W] on the CPU."""
        if severity not in SEVERITIES:
            raise KeyError((kind, severity))
        files, part, md5 = self._sets[kind]
        places = places.cpu()
        if files.layout == "arrays":
            return self._from_array(files, part, md5, severity, places)
        return self._from_folder(files, part, severity, places)

    def _from_array(
        self, files: FileSet, part: str, md5: str | None, severity: int, places: Tensor
    ) -> Tensor:
        count, (channels, height, width) = len(self.labels), self.shape
        shape = (len(SEVERITIES) * count, height, width, channels)
        chosen = self._array(files, part, md5, shape)[((severity - 1) * count + places).numpy()]
        return torch.from_numpy(np.ascontiguousarray(chosen.transpose(0, 3, 1, 2)))

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

    def _from_folder(self, files: FileSet, part: str, severity: int, places: Tensor) -> Tensor:
        folder = f"{part}/{severity}"
        if folder not in self._folders:
            self._folders[folder] = self._open_folder(files, self.root / folder)
        listing, place_of, whole = self._folders[folder]
        chosen = place_of[places]
        images = decode(listing[chosen], channels=self.shape[0]) if whole is None else whole[chosen]
        if images.shape[1:] != self.shape:
            raise UserError(
                f"{listing.folder}: the images are {list(images.shape[1:])}, expected {list(self.shape)}"
            )
        if files.central == 1:
            return images
        return resized_crop(
            images, central_boxes(torch.tensor(images.shape[2:]).expand(len(images), 2), files.central)
        )

    def _open_folder(self, files: FileSet, folder: Path) -> tuple[Listing, Tensor, Tensor | None]:
        """(images, where among them that of each test image is, all decoded): the n-th of a class is its n-th here.

        Where they are too many to be kept decoded, they are decoded when they are asked for.
        """
        listing = list_classes(folder)
        order = torch.argsort(self.labels, stable=True)
        if not torch.equal(self.labels[order], listing.labels):
            raise UserError(
                f"{listing.folder} holds {len(listing):,} images of {len(listing.classes)} classes, not as many of "
                f"each class as the {len(self.labels):,} test images; get it again from {files.page}"
            )
        small = len(listing) * prod(self.shape) <= KEPT_BYTES
        whole = decoded(listing, self.cache, channels=self.shape[0]) if small else None
        return listing, torch.argsort(order), whole
