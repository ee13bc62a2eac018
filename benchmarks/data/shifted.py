"""Published test images that are not corruptions of the test set: ImageNet-A, -R, -Sketch, -D, Cartoon, Drawing, Hard.

Their images are of various sizes, so they are streamed from disk. As in the DAMP authors' evaluation, ImageNet-A, -D
and -Sketch are squashed to 256 x 256 (bicubic), of which the central 224 x 224 pixels are seen; of the others the same
is seen as of ImageNet's own test images. The authors' code has nothing on -R and -Hard.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.data.dataset import ImageSet, Source
from benchmarks.data.files.declared import SHIFTED_LAYOUTS, FileSet, file_set, shifted_names
from benchmarks.data.files.fetch import ensure
from benchmarks.data.image_cache import Preparation
from benchmarks.data.image_folder import Listing, list_classes, named
from benchmarks.data.imagenet import RESIZE, ImageNet, imagenet_classes, seen
from benchmarks.data.streaming import stream
from benchmarks.errors import UserError, unknown_name
from benchmarks.runtime import DATA_VARIABLE


@dataclass(frozen=True)
class ShiftedSet:
    """Test images with the labels of ImageNet-1k.

    ``accepted`` int64 [N, K]: the labels that count as right for each image, filled up with -1. ``outputs`` int64:
    which of the 1,000 outputs compete (the 200 classes of ImageNet-A and -R); None: all of them.
    """

    listing: Listing
    accepted: Tensor
    outputs: Tensor | None


@dataclass(frozen=True)
class ShiftedImages:
    """A :class:`ShiftedSet` that is open: its images, and ``accepted`` and ``outputs`` on the same device."""

    images: ImageSet
    accepted: Tensor
    outputs: Tensor | None

    def to(self, device: str) -> ShiftedImages:
        outputs = None if self.outputs is None else self.outputs.to(device)
        return ShiftedImages(self.images.to(device), self.accepted.to(device), outputs)


def check_shifted(names: list[str], source: Source) -> None:
    """Raise a :class:`UserError` if a model of this data set can't be tested on the sets ``names``."""
    if not names:
        return
    if source.files != ImageNet.files:
        raise UserError(
            f"evaluation.shifted={names}: these images show ImageNet's classes, which this data set does not have; "
            "choose dataset=imagenet or leave evaluation.shifted empty"
        )
    if source.split != "test":
        raise UserError(f"evaluation.shifted={names} are test images: they need dataset.split=test")


def missing_shifted(names: list[str], root: Path) -> list[str]:
    """For each set that is not all there, one line: what is missing, where it should be and how to get it."""
    problems = [file_set(name).missing(root, DATA_VARIABLE) for name in names]
    return [problem for problem in problems if problem]


def open_shifted(names: list[str], source: Source, root: Path, download: bool) -> dict[str, ShiftedImages]:
    """All sets of ``names``, prepared for a model of ``source``; decodes what is not in its cache yet.

    Raises:
        UserError: see :func:`check_shifted`, :func:`shifted_sets` and :class:`benchmarks.data.image_cache.ImageCache`.
    """
    check_shifted(names, source)
    size, opened = source.image_size, {}
    for name in names:
        ensure(file_set(name), root, download)
        squashed = file_set(name).squashed
        preparation = Preparation(RESIZE, crop=size, squash=True) if squashed else seen(size)
        for part, found in shifted_sets(name, root).items():
            images = stream(found.listing, source.cache, size, preparation)
            opened[part] = ShiftedImages(images, found.accepted, found.outputs)
    return opened


def shifted_sets(name: str, root: Path) -> dict[str, ShiftedSet]:
    """The sets of a published one by their names: itself, for ImageNet-D ``imagenet_d.background`` and two more.

    Raises:
        UserError: unknown or missing set, class folders or labels that are not those of the set.
    """
    files = file_set(name)
    if files.layout not in SHIFTED_LAYOUTS:
        raise unknown_name("set of shifted test images", name, shifted_names())
    absent = files.missing(root, DATA_VARIABLE)
    if absent:
        raise UserError(absent)
    read = _by_class if files.layout == "classes" else _by_list
    return {part: read(files, root / folder) for part, folder in files.sets.items()}


def _by_class(files: FileSet, folder: Path) -> ShiftedSet:
    """Class folders named by WordNet id, or by a name whose ImageNet labels the declaration gives."""
    if files.accepted:
        listing = list_classes(folder)
        strange = sorted(set(listing.classes) - set(files.accepted))
        if strange:
            raise UserError(f"{folder}: {named(strange)} is not a class of {files.name}")
        labels = [files.accepted[name] for name in listing.classes]
        return ShiftedSet(listing, _padded(labels)[listing.labels], None)
    known = {wnid: label for label, wnid in enumerate(imagenet_classes())}
    listing = list_classes(folder, imagenet_classes(files.classes))
    labels_of = torch.tensor([known[wnid] for wnid in listing.classes])
    return ShiftedSet(listing, labels_of[listing.labels][:, None], labels_of if files.classes else None)


def _by_list(files: FileSet, folder: Path) -> ShiftedSet:
    """Images in one folder with labels.json beside them: {file: [label, ...]}."""
    path = folder / "labels.json"
    try:
        rows = sorted(
            (str(file), [int(label) for label in labels])
            for file, labels in json.loads(path.read_text()).items()
        )
    except (OSError, ValueError, TypeError, AttributeError):
        raise UserError(f"{path} can't be read as {{file: [label, ...]}}; {files.prepare}") from None
    lost = [file for file, _ in rows if not (folder / file).is_file()]
    if lost or not rows:
        raise UserError(
            f"{path} names {len(lost)} of {len(rows)} images that are not there: {named(lost) or 'none'}"
        )
    if any(
        not labels or not all(0 <= label < len(imagenet_classes()) for label in labels) for _, labels in rows
    ):
        raise UserError(f"{path}: labels out of range: each image needs one or more from 0 to 999")
    accepted = _padded([labels for _, labels in rows])
    listing = Listing(folder, imagenet_classes(), tuple(file for file, _ in rows), accepted[:, 0].clone())
    return ShiftedSet(listing, accepted, None)


def _padded(labels: list[list[int]]) -> Tensor:
    width = max(map(len, labels))
    return torch.tensor([[*some, *[-1] * (width - len(some))] for some in labels])
