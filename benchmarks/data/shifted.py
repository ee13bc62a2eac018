"""Published test images that are not corruptions of the test set: ImageNet-A, -R, -Sketch, -D, Cartoon, Drawing, Hard.

Their images are of various sizes, so what is given here is a listing for a loader that reads from disk, with what
counts as right.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.data.files.declared import FileSet, file_set
from benchmarks.data.image_folder import Listing, list_classes, named
from benchmarks.data.imagenet import imagenet_classes
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

    def right(self, logits: Tensor, chosen: Tensor) -> Tensor:
        """Whether the highest output is right, bool [B], for ``logits`` [B, 1000] of the images ``chosen`` [B]."""
        if self.outputs is not None:
            logits = logits[:, self.outputs.to(logits.device)]
        best = logits.argmax(1).cpu()
        if self.outputs is not None:
            best = self.outputs[best]
        return (self.accepted[chosen.cpu()] == best[:, None]).any(1)


def shifted_sets(name: str, root: Path) -> dict[str, ShiftedSet]:
    """The parts of a published set: one called like its folder, for ImageNet-D three.

    Raises:
        UserError: unknown or missing set, class folders or labels that are not those of the set.
    """
    files = file_set(name)
    if files.layout not in ("classes", "labelled"):
        raise unknown_name("set of shifted test images", name, [])
    absent = files.missing(root, DATA_VARIABLE)
    if absent:
        raise UserError(absent)
    read = _by_class if files.layout == "classes" else _by_list
    parts = [part for download in files.downloads for part in download.parts]
    return {part.rpartition("/")[2]: read(files, root / part) for part in parts}


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
