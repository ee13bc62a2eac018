"""Images that are streamed from disk, for sets larger than the memory: an :class:`ImageSet` like those in memory.

The order and every crop are decided before anything is read, so that what comes is the same for any number of loader
processes and from any batch on, and what a continued run has seen already is not read again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.data.image_cache import ImageCache, Preparation
from benchmarks.data.image_folder import Listing
from benchmarks.data.loaders import Loaders
from benchmarks.data.resampling import central_boxes
from benchmarks.data.transfer import Feed
from benchmarks.runtime import cores
from benchmarks.terminal import note, warn
from weightaug.transfer import send

LOADERS = 16
"""Loader processes, or one a core where there are fewer cores."""
TELL_SECONDS = 10.0
"""Reading that takes less is not reported."""
STARVED = 0.1
"""The share of the time from which on waiting for images is warned of."""


@dataclass
class Waiting:
    """Seconds for which the device waited for the images of a stream, in all readings together."""

    seconds: float = 0.0


@dataclass(frozen=True)
class ImageStream:
    """Cached images, cut and resized by loader processes and sent to the device batch by batch.

    Args:
        cache: the images.
        labels: int64 [N], on the device that batches go to.
        places: where in the cache the images are, int64 [N].
        size: side of the images that are read.
        share: of an image without a box, the central square with this share of the shorter side is read.
        loaders: processes; 0 reads in this one.
    """

    cache: ImageCache
    labels: Tensor
    places: Tensor
    size: int
    share: float = 1.0
    loaders: int = 0
    waiting: Waiting = field(default_factory=Waiting)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def sizes(self) -> Tensor:
        return self.cache.sizes[self.places]

    @property
    def waited(self) -> float:
        return self.waiting.seconds

    def to(self, device: str) -> ImageStream:
        return replace(self, labels=self.labels.to(device))

    def __getitem__(self, chosen: Tensor) -> ImageStream:
        return replace(self, labels=self.labels[chosen], places=self.places[chosen])

    def read(
        self, order: Tensor, batch_size: int, boxes: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        device = self.labels.device
        places = self.places[order]
        if boxes is None:
            boxes = central_boxes(self.cache.sizes[places], self.share)
        loaders = Loaders.taken(self.cache, self.size, self.loaders, batch_size, device.type == "cuda")
        begun, before = time.perf_counter(), self.waited
        feed = Feed(loaders.pieces(places, boxes, batch_size), device)
        for labels in self.labels[send(order, device)].split(batch_size):
            images = feed.batch(len(labels))
            self.waiting.seconds = before + feed.waited
            yield images, labels
        feed.end()
        self.waiting.seconds = before + feed.waited
        loaders.keep()
        self._tell(len(order), time.perf_counter() - begun, feed.waited)

    def _tell(self, count: int, seconds: float, waited: float) -> None:
        """How fast images came, and whether whoever used them had to wait."""
        if seconds < TELL_SECONDS:
            return
        share = waited / seconds
        told = f"{self.cache.listing.folder}: {count / seconds:.0f} images/s"
        if share < STARVED:
            note(f"{told}, {share:.0%} of the time waiting for them")
        else:
            warn(
                f"{told}: {share:.0%} of the time the device waits for images; {self.loaders} loader processes are "
                f"too slow, use a machine with more cores or a faster disk for {self.cache.folder}"
            )


def stream(
    listing: Listing, cache: Path, size: int, preparation: Preparation, share: float = 1.0, loaders: int = -1
) -> ImageStream:
    """The images of a listing as a stream; decodes what is not in ``cache`` yet.

    Args:
        loaders: processes, -1 for as many as there are cores, at most ``LOADERS``.
        others: see :class:`ImageStream` and :class:`Preparation`.

    Raises:
        UserError: see :class:`ImageCache`.
    """
    loaders = min(LOADERS, cores()) if loaders < 0 else loaders
    images = ImageCache(listing, preparation, cache, loaders)
    return ImageStream(images, listing.labels, torch.arange(len(listing)), size, share, loaders)
