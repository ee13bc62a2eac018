"""Folders of images, one folder a class, and their listing; see :mod:`benchmarks.data.decode` for the images."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"}
"""What counts as an image; of an animation the first picture is taken."""
NAMED = 3
"""How many of several faulty files an error names; it counts them all."""


@dataclass(frozen=True)
class Listing:
    """The images of a folder: ``files[i]``, relative to ``folder``, is of the class ``classes[labels[i]]``.

    Classes and files are in alphabetical order, so that a label is the position of the class's name among all.
    """

    folder: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, chosen: Tensor) -> Listing:
        files = tuple(self.files[place] for place in chosen.tolist())
        return Listing(self.folder, self.classes, files, self.labels[chosen])

    def signature(self) -> list[tuple[str, int, int]]:
        """(path, bytes, time of the last change) of every image: changes when a file does, or is another's.

        Files of two folders can agree in names, sizes and the times of change that an archive sets, so the path is
        the whole one, and the time is the file system's own (ctime), which no program can set back.
        """
        folder = self.folder.resolve()
        stats = ((f"{folder}/{file}", (folder / file).stat()) for file in self.files)
        try:
            return [(path, stat.st_size, stat.st_ctime_ns) for path, stat in stats]
        except OSError as error:  # a link that leads nowhere, say
            raise UserError(f"{named([str(error.filename)])} can't be read: {error.strerror}") from None


def list_classes(folder: Path, classes: Sequence[str] | None = None, below: str = "") -> Listing:
    """List the class folders of ``folder``.

    Args:
        classes: the names that there must be, in the order of the labels; None: whatever there is, sorted.
        below: a folder within each class folder that holds its images, such as ``images`` in TinyImageNet.

    Raises:
        UserError: no class folder, one that is missing or not known, one without images.
    """
    try:
        found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and counts(entry.name))
    except OSError as error:
        raise UserError(f"the image folder {folder} can't be read: {error.strerror}") from None
    if not found:
        raise UserError(f"{folder} has no class folders; it needs one folder of images for each class")
    if classes is not None and set(found) != set(classes):
        lacking, strange = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
        raise UserError(
            f"{folder} has {len(found)} class folders, expected {len(classes)}"
            + (f"; {named(lacking)} missing" if lacking else "")
            + (f"; {named(strange)} not known" if strange else "")
        )
    names = tuple(classes or found)
    files: list[str] = []
    labels: list[int] = []
    empty = []
    for label, name in enumerate(names):
        images = _images(folder, f"{name}/{below}" if below else name)
        if not images:
            empty.append(name)
        files += images
        labels += [label] * len(images)
    if empty:
        raise UserError(f"{folder}: no images in the class {_folders(empty)} {named(empty)}; fill or remove")
    return Listing(folder, names, tuple(files), torch.tensor(labels, dtype=torch.int64))


def _folders(names: Sequence[str]) -> str:
    return "folder" if len(names) == 1 else f"folders ({len(names)})"


def named(names: Sequence[str]) -> str:
    """The first few of several names, and how many more there are."""
    more = len(names) - NAMED
    printable = (name if name.isprintable() else repr(name) for name in names[:NAMED])
    return ", ".join(printable) + (f" and {more} more" if more > 0 else "")


def _images(folder: Path, inner: str) -> list[str]:
    """The images below one class folder, as paths relative to ``folder``."""
    path = folder / inner
    if not path.is_dir():
        return []
    names = (entry.name for entry in os.scandir(path) if not entry.is_dir() and counts(entry.name))
    return [f"{inner}/{name}" for name in sorted(names) if Path(name).suffix.lower() in SUFFIXES]


def counts(name: str) -> bool:
    """Whether a file or folder is one that a person put there: not hidden, nor what macOS adds to archives."""
    return not name.startswith(".") and name != "__MACOSX"


def left_out(folder: Path, used: Collection[str]) -> tuple[list[str], list[str]]:
    """(images, other files) below ``folder`` that are not among ``used``, all as relative paths, sorted."""
    images: list[str] = []
    others: list[str] = []
    for place, folders, names in os.walk(folder):
        folders[:] = filter(counts, folders)
        for name in filter(counts, names):
            file = (Path(place) / name).relative_to(folder).as_posix()
            if file not in used:
                (images if Path(name).suffix.lower() in SUFFIXES else others).append(file)
    return sorted(images), sorted(others)


def count_images(folder: Path) -> int:
    """How many images there are in all folders below ``folder``."""
    return sum(Path(name).suffix.lower() in SUFFIXES for _, _, names in os.walk(folder) for name in names)
