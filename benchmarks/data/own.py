"""A person's own images as a data set, by config alone: ``dataset=folder`` and ``dataset=tensors``.

What the files hold is part of a cell's id, where they lie is not: the same files elsewhere are the same cell, changed
files are another. Under a digest of what they hold, the decoded images are kept in the cache folder, and with them the
class count, mean and standard deviation; the size is theirs. All of it is worked out once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.data.dataset import DataSet, Images, Source
from benchmarks.data.decode import decode, kept
from benchmarks.data.files.checks import digest
from benchmarks.data.image_folder import Listing, left_out, list_classes, named
from benchmarks.data.splits import stratified
from benchmarks.data.statistics import channel_statistics
from benchmarks.data.tensor_file import read_tensors
from benchmarks.errors import UserError
from benchmarks.results.files import write_text
from benchmarks.runtime import Runtime
from benchmarks.terminal import note, warn_once

TEST_FOLDERS = ("test", "val")
MANY_BYTES = 1 << 30


class OwnData(Source):
    """What own folders and own files have in common.

    Args:
        path: where the images are; relative to the current folder.
        test_share: share of every class that is held out for testing where the images come without a test set;
            which images those are is fixed.
        expected: the ``content`` of the cell that is run; other files than those are refused.
    """

    def __init__(
        self,
        *,
        path: str,
        test_share: float,
        options: dict[str, Any],
        expected: dict[str, str] | None,
        **settings: Any,
    ) -> None:
        if not 0 < test_share < 1:
            raise UserError(f"dataset.test_share={test_share}: must be above 0 and below 1")
        self.path, self.test_share = Path(path).expanduser(), test_share
        cache = settings["cache"] or Runtime().cache_folder
        content = self.content(cache, path=path)
        if expected and expected != content:
            raise UserError(
                f"dataset.path={path}: the files have changed since the run began; start it again"
            )
        key = [type(self).__name__, *content.values(), test_share, options, "with statistics"]
        parts = kept(cache, key, lambda: _checked(self.path, self._parts(**options)))
        train, test = (Images(parts[f"{name}_images"], parts[f"{name}_labels"]) for name in ("train", "test"))
        self._data = DataSet(train, test, tuple(parts["mean"].tolist()), tuple(parts["std"].tolist()))
        self.counts = (len(train), len(test))
        self.num_classes = int(parts["classes"])
        self.in_channels, self.image_size = train.images.shape[1:3]
        self._tell_untested(test.labels)
        super().__init__(**settings)

    def read(self, root: Path) -> DataSet:
        return self._data

    @classmethod
    def content(cls, cache: Path, *, path: str, **_: Any) -> dict[str, str]:
        """What stands for ``path`` in ids and cards: a digest of the files."""
        raise NotImplementedError

    def _parts(self, **options: Any) -> dict[str, Tensor]:
        """``train_images``, ``train_labels``, ``test_images``, ``test_labels``."""
        raise NotImplementedError

    def _class_name(self, label: int) -> str:
        return str(label)

    def _tell_untested(self, labels: Tensor) -> None:
        """Warn of classes that have training images alone, whose errors nobody will see."""
        tested = set(labels.unique().tolist())
        lacking = [self._class_name(label) for label in range(self.num_classes) if label not in tested]
        if lacking:
            warn_once(
                f"{self.path.resolve()}: {len(lacking)} of {self.num_classes} classes have no test images and are "
                f"trained untested: {named(lacking)}"
            )

    def _split(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The parts where the images come without a test set."""
        kept_, held = stratified(labels, self.test_share, "test")
        return {
            "train_images": images[kept_],
            "train_labels": labels[kept_],
            "test_images": images[held],
            "test_labels": labels[held],
        }


class Folder(OwnData):
    """A folder of images: with ``train`` and ``test`` (or ``val``) folders of class folders, or of class folders alone.

    Args:
        size: pixels of the side that images are resized and cropped to; None: they must be square and of one size.
        channels: 1 or 3 converts grey, colour, palette and transparent images; None: they must be of one kind.
    """

    def __init__(
        self,
        *,
        path: str = "",
        size: int | None = None,
        channels: int | None = None,
        test_share: float = 0.2,
        corruptions: dict[str, list[Any]] | None = None,
        split: str = "test",
        mean: list[float] | None = None,
        std: list[float] | None = None,
        cache: Path | None = None,
        expected: dict[str, str] | None = None,
    ) -> None:
        if channels not in (None, 1, 3) or (size is not None and size < 1):
            raise UserError(
                f"dataset.channels={channels}, dataset.size={size}: 1 or 3 channels, at least 1 pixel"
            )
        super().__init__(
            path=path,
            test_share=test_share,
            options={"size": size, "channels": channels},
            corruptions=corruptions,
            split=split,
            mean=mean,
            std=std,
            cache=cache,
            expected=expected,
        )

    @classmethod
    def content(cls, cache: Path, *, path: str, **_: Any) -> dict[str, str]:
        listings = _listings(_given(path, "folder", "FOLDER"))
        signature = {name: listing.signature() for name, listing in listings.items()}

        def hashed() -> str:
            whole = hashlib.sha256()
            for name, listing in listings.items():
                for file in listing.files:
                    line = f"{name}/{file}/{digest(listing.folder / file, 'sha256')}\n"
                    whole.update(line.encode(errors="surrogateescape"))  # names that are no UTF-8
            return whole.hexdigest()

        _tell_left_out(Path(path).expanduser(), listings)
        size = sum(size for files in signature.values() for _, size, _ in files)
        return {"path": _remembered(cache, signature, size, hashed)}

    def _class_name(self, label: int) -> str:
        return next(iter(_listings(self.path).values())).classes[label]

    def _parts(self, **options: Any) -> dict[str, Tensor]:
        listings = _listings(self.path)
        images = {name: decode(listing, **options) for name, listing in listings.items()}
        if "" in images:
            return self._split(images[""], listings[""].labels)
        return {
            f"{part}_{what}": value
            for part in ("train", "test")
            for what, value in (("images", images[part]), ("labels", listings[part].labels))
        }


class Tensors(OwnData):
    """A file of tensors, .npz, .safetensors or .pt: see :func:`benchmarks.data.tensor_file.read_tensors`."""

    def __init__(
        self,
        *,
        path: str = "",
        test_share: float = 0.2,
        corruptions: dict[str, list[Any]] | None = None,
        split: str = "test",
        mean: list[float] | None = None,
        std: list[float] | None = None,
        cache: Path | None = None,
        expected: dict[str, str] | None = None,
    ) -> None:
        super().__init__(
            path=path,
            test_share=test_share,
            options={},
            corruptions=corruptions,
            split=split,
            mean=mean,
            std=std,
            cache=cache,
            expected=expected,
        )

    @classmethod
    def content(cls, cache: Path, *, path: str, **_: Any) -> dict[str, str]:
        file = _given(path, "tensors", "FILE")
        stat = file.stat()
        signature = [str(file.resolve()), stat.st_size, stat.st_ctime_ns]
        return {"path": _remembered(cache, signature, stat.st_size, lambda: digest(file, "sha256"))}

    def _parts(self, **options: Any) -> dict[str, Tensor]:
        tensors = read_tensors(self.path)
        return tensors if "train_images" in tensors else self._split(tensors["images"], tensors["labels"])


def _given(path: str, name: str, what: str) -> Path:
    """The path that a person gave, or the error that there is none."""
    if not path:
        raise UserError(f"dataset={name} needs to be told where the images are: dataset.path={what}")
    place = Path(path).expanduser()
    right = place.is_dir() if name == "folder" else place.is_file()
    if not right:
        raise UserError(f"dataset.path={path}: there is no such {what.lower()}")
    return place


def _listings(folder: Path) -> dict[str, Listing]:
    """The images by part: ``train`` and ``test``, or all of them under an empty name."""
    if not (folder / "train").is_dir():
        return {"": list_classes(folder)}
    test = next((folder / name for name in TEST_FOLDERS if (folder / name).is_dir()), None)
    if test is None:
        raise UserError(
            f"{folder} has a folder train but none called test or val; add one, or name {folder / 'train'}"
        )
    train = list_classes(folder / "train")
    return {"train": train, "test": list_classes(test, train.classes)}


def _tell_left_out(folder: Path, listings: dict[str, Listing]) -> None:
    """Name and count the files of the folder that are no part of the data set."""
    used = {
        (listing.folder / file).relative_to(folder).as_posix()
        for listing in listings.values()
        for file in listing.files
    }
    images, others = left_out(folder, used)
    said = (
        [f"{len(images)} images outside of the class folders or deeper in them: {named(images)}"]
        if images
        else []
    )
    said += [f"{len(others)} files that are no images by their name: {named(others)}"] if others else []
    if said:
        warn_once(f"{folder.resolve()}: not used are {'; and '.join(said)}")


def _remembered(cache: Path, signature: Any, size: int, make: Callable[[], str]) -> str:
    """A digest of files, worked out again only where a size or a time of change did."""
    name = hashlib.blake2b(json.dumps(signature).encode(), digest_size=16).hexdigest()
    path = cache / f"{name}.sha256"
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        pass
    if size > MANY_BYTES:
        note(f"reading {size:,} bytes of images for the cell's id, once")
    found = "sha256:" + make()
    with contextlib.suppress(OSError):  # then it is worked out again next time
        write_text(path, found + "\n")
    return found


def _checked(path: Path, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parts with the number of ``classes``, and ``mean`` and ``std``; or the error that says what does not fit."""
    train, test = (Images(parts[f"{name}_images"], parts[f"{name}_labels"]) for name in ("train", "test"))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UserError(
            f"{path}: training images are {_words(train)}, test images {_words(test)}; they must agree"
        )
    if not len(train) or not len(test):
        raise UserError(
            f"{path} gives {len(train)} training and {len(test)} test images; give more of each class, or raise "
            "dataset.test_share"
        )
    present = train.labels.unique()
    classes = int(present[-1]) + 1
    if int(present[0]) < 0 or len(present) < classes or not torch.isin(test.labels, present).all():
        raise UserError(
            f"{path}: labels out of range: the training labels must be 0 to {classes - 1} without a gap, and the test "
            f"labels among them; they are {int(present[0])} to {classes - 1} ({len(present)} different) and "
            f"{int(test.labels.min())} to {int(test.labels.max())}"
        )
    if classes < 2:
        raise UserError(f"{path} has {classes} class; at least 2 are needed")
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in channel_statistics(train.images))
    return {**parts, "classes": torch.tensor(classes), "mean": mean, "std": std}


def _words(part: Images) -> str:
    channels, height, width = part.images.shape[1:]
    return f"{width}x{height} with {channels} channel(s)"
