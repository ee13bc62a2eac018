"""What a data set is to the harness: uint8 images, on the device or streamed to it, read through one interface."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor

from benchmarks.data.corruptions import check_severities
from benchmarks.data.files.declared import file_set
from benchmarks.data.files.fetch import ensure
from benchmarks.data.resampling import resized_crop
from benchmarks.data.splits import VALIDATION_SHARE, stratified
from benchmarks.errors import UserError, unknown_name
from benchmarks.runtime import DATA_VARIABLE, Runtime
from benchmarks.terminal import note_once
from weightaug.transfer import send

if TYPE_CHECKING:
    from benchmarks.data.corrupted import PublishedCorruptions

SPLITS = ("test", "validation")
ORIGINS = ("generated", "published")


class ImageSet(Protocol):
    """Images with labels int64 [N]. :class:`Images` are on the device, others are streamed to it."""

    @property
    def labels(self) -> Tensor: ...

    @property
    def sizes(self) -> Tensor:
        """Height and width of every image before it is cut to the size that is read, int64 [N, 2] on the CPU."""
        ...

    @property
    def waited(self) -> float:
        """For how many seconds the device has waited for images to come so far."""
        ...

    def __len__(self) -> int: ...

    def to(self, device: str) -> ImageSet: ...

    def __getitem__(self, chosen: Tensor) -> ImageSet:
        """The images at the places ``chosen`` int64 [n], in that order."""
        ...

    def read(
        self, order: Tensor, batch_size: int, boxes: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of (uint8 images [B, C, H, W], labels [B]), on the device.

        Args:
            order: places in the set, int64 [n] on the CPU; the last batch may be smaller.
            batch_size: B.
            boxes: what to cut out of each image and resize to H x W, int64 [n, 4] in the order of ``order``:
                top, left, height, width.
        """
        ...


@dataclass(frozen=True)
class Images:
    """Images as uint8 [N, C, H, W] with labels int64 [N]."""

    images: Tensor
    labels: Tensor

    waited: ClassVar[float] = 0.0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sizes(self) -> Tensor:
        return torch.tensor(self.images.shape[2:]).expand(len(self), 2)

    def to(self, device: str) -> Images:
        return Images(self.images.to(device), self.labels.to(device))

    def __getitem__(self, chosen: Tensor) -> Images:
        return Images(self.images[chosen], self.labels[chosen])

    def read(
        self, order: Tensor, batch_size: int, boxes: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        order = send(order, self.labels.device)
        boxes = None if boxes is None else send(boxes, self.labels.device)
        for start in range(0, len(order), batch_size):
            here = slice(start, start + batch_size)
            images = self.images[order[here]]
            if boxes is not None:
                images = resized_crop(images, boxes[here])
            yield images, self.labels[order[here]]


@cache
def channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A number for each channel, [1, C, 1, 1]; kept, as copying it to a GPU would wait for that."""
    return torch.tensor(values, device=device).view(1, -1, 1, 1)


@dataclass(frozen=True)
class DataSet:
    """A loaded data set: the training and the test images and how to normalise them."""

    train: ImageSet
    test: ImageSet
    mean: tuple[float, ...]  # per channel, on the pixel scale 0..1
    std: tuple[float, ...]

    def to(self, device: str) -> DataSet:
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def for_tuning(self) -> DataSet:
        """A tenth of the training images, held out by class, in the place of the test images, which are left out."""
        kept, held = stratified(self.train.labels, VALIDATION_SHARE, "validation")
        return replace(self, train=self.train[kept], test=self.train[held])

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] to float32 with the data set's mean and standard deviation taken out."""
        mean, std = (channels(values, images.device) for values in (self.mean, self.std))
        return (
            images.to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)
        )  # in place: large blocks are slow to get

    def standardise(self, pixels: Tensor) -> Tensor:
        """As :meth:`normalise`, of pixels on the scale 0 to 1, differentiable."""
        return (pixels - channels(self.mean, pixels.device)) / channels(self.std, pixels.device)

    def pixels(self, inputs: Tensor) -> Tensor:
        """The uint8 images that :meth:`normalise` made ``inputs`` of; the nearest ones if there are none."""
        mean, std = (channels(values, inputs.device) for values in (self.mean, self.std))
        return ((inputs.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


class Source:
    """Where a data set comes from. A subclass is what a config's ``_target_`` names; it has :meth:`read`.

    Args:
        corruptions: a corruption's name -> its parameters at severities 1 to 5
            (see :mod:`benchmarks.data.corruptions`).
        corrupted: where the corrupted test images come from: ``generated`` here, or ``published`` as the authors of
            CIFAR-10-C and the like released them. An explicit switch, never chosen by what happens to lie in the data
            folder: the two give different numbers, and a cell's id must determine its numbers on every machine.
        split: ``test``, or ``validation`` for tuning: see :meth:`DataSet.for_tuning`.
        mean, std: per channel on the pixel scale 0..1, in place of the data set's own.
        cache: folder for what is made from the files, such as decoded images; default: the machine's setting.
    """

    files: ClassVar[str] = ""
    """What of the config group ``files`` it is read from; nothing for what needs no files."""
    published_sets: ClassVar[tuple[str, ...]] = ()
    """Published corruptions of its test images, likewise."""

    counts: tuple[int, int] | None = None
    """How many training and test images there are, where that is known before they are read: for plans."""
    in_memory: ClassVar[bool] = True
    """Whether the images are held on the device; others are streamed to it."""

    num_classes: int
    in_channels: int
    image_size: int

    def __init__(
        self,
        *,
        corruptions: dict[str, list[Any]] | None = None,
        corrupted: str = "generated",
        split: str = "test",
        mean: list[float] | None = None,
        std: list[float] | None = None,
        cache: Path | None = None,
    ) -> None:
        for key, value, known in (("split", split, SPLITS), ("corrupted", corrupted, ORIGINS)):
            if value not in known:
                raise unknown_name(f"value of dataset.{key}", value, known)
        if corrupted == "published" and split != "test":
            raise UserError(
                "dataset.corrupted=published are corrupted test images: they need dataset.split=test"
            )
        for key, values in (("mean", mean), ("std", std)):
            if values is not None and (
                len(values) != self.in_channels or (key == "std" and min(values) <= 0)
            ):
                raise UserError(f"dataset.{key}={values}: {self.in_channels} numbers are needed, std above 0")
        self.corruptions = check_severities(corruptions or {})
        self.corrupted, self.split, self.mean, self.std = corrupted, split, mean, std
        self.cache = cache or Runtime().cache_folder

    def decoded_bytes(self) -> int:
        """About what is kept in the cache of its images once they are decoded; for plans."""
        return 0

    def needed_sets(self) -> tuple[str, ...]:
        """The entries of the config group ``files`` that this source reads."""
        from benchmarks.data.corrupted import sets_of

        own = (self.files,) if self.files else ()
        if self.corrupted == "generated":
            return own
        return own + sets_of(self.published_sets, self.corruptions)

    def tell_unused(self, root: Path) -> None:
        """Say once that published corruptions are there but not used, and how they would be."""
        from benchmarks.data.corrupted import types_of

        if self.corrupted == "published":
            return
        fitting = (name for name in self.published_sets if set(types_of(name)) & set(self.corruptions))
        there = [name for name in fitting if not file_set(name).missing(root, DATA_VARIABLE)]
        if there:
            note_once(
                f"{', '.join(there)} in {root.resolve()} not used: dataset.corrupted=generated makes the corrupted "
                "images itself; dataset.corrupted=published takes those, and is another cell"
            )

    def published(self, root: Path, labels: Tensor) -> PublishedCorruptions | None:
        """The published corruptions of the test images, whose ``labels`` are these; None: generate them."""
        from benchmarks.data.corrupted import PublishedCorruptions

        if self.corrupted == "generated":
            return None
        shape = (self.in_channels, self.image_size, self.image_size)
        return PublishedCorruptions(self.published_sets, self.corruptions, root, labels, shape, self.cache)

    def missing(self, root: Path) -> str | None:
        """What of the files is not there, where it was looked for and how to get it; None if all is."""
        problems = [file_set(name).missing(root, DATA_VARIABLE) for name in self.needed_sets()]
        return "; ".join(problem for problem in problems if problem) or None

    def load(self, root: Path, download: bool = False) -> DataSet:
        """The data set below ``root``, fetched if need be and allowed, checked, split and with its normalisation."""
        absent = self.missing(root)
        if absent and not download:
            raise UserError(absent)
        for name in self.needed_sets():
            ensure(file_set(name), root, download)
        data = self.read(root)
        data = replace(data, mean=tuple(self.mean or data.mean), std=tuple(self.std or data.std))
        return data.for_tuning() if self.split == "validation" else data

    def read(self, root: Path) -> DataSet:
        """Read the data set from its files below ``root``."""
        raise NotImplementedError
