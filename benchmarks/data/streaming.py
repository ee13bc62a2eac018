"""Images that are streamed from disk, for sets larger than the memory: an :class:`ImageSet` like those in memory.

The order and every crop are decided before anything is read, so that what comes is the same for any number of loader
processes and from any batch on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from benchmarks.data.image_cache import ImageCache, Preparation
from benchmarks.data.image_folder import Listing
from benchmarks.data.resampling import central_boxes
from benchmarks.runtime import cores
from benchmarks.terminal import note, warn

LOADERS = 16
"""Loader processes, or one a core where there are fewer cores."""
TELL_SECONDS = 10.0
"""Reading that takes less is not reported."""
STARVED = 0.1
"""The share of the time from which on waiting for images is warned of."""


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

    def __len__(self) -> int:
        return len(self.places)

    @property
    def sizes(self) -> Tensor:
        return self.cache.sizes[self.places]

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
        plan = _Plan(places, boxes, batch_size)
        cut = _Cut(self.cache, self.size)
        loader = DataLoader(
            cut, batch_sampler=plan, num_workers=self.loaders, pin_memory=device.type == "cuda"
        )
        labels = self.labels[order.to(device)].split(batch_size)
        batches = iter(loader)
        begun, waited = 0.0, 0.0
        for number, of_batch in enumerate(labels):
            asked = time.perf_counter()
            images: Tensor = next(batches)
            came = time.perf_counter()
            if number == 0:
                begun = came  # the start of the processes says nothing of their speed
            else:
                waited += came - asked
            yield images.to(device, non_blocking=True), of_batch
        self._tell(len(order) - batch_size, time.perf_counter() - begun, waited)

    def _tell(self, count: int, seconds: float, waited: float) -> None:
        """How fast images came, and whether whoever used them had to wait."""
        if count <= 0 or seconds < TELL_SECONDS:
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


class _Plan(Sampler[list[tuple[int, list[int]]]]):
    """Which images the batches hold and what is cut out of each."""

    def __init__(self, places: Tensor, boxes: Tensor, batch_size: int) -> None:
        self.batches = list(zip(places.split(batch_size), boxes.split(batch_size), strict=True))

    def __iter__(self) -> Iterator[list[tuple[int, list[int]]]]:
        for places, boxes in self.batches:
            yield list(zip(places.tolist(), boxes.tolist(), strict=True))

    def __len__(self) -> int:
        return len(self.batches)


class _Cut(Dataset[Tensor]):
    """The cut and resized image for one entry of the plan."""

    def __init__(self, cache: ImageCache, size: int) -> None:
        self.cache, self.size = cache, size

    def __getitem__(self, entry: tuple[int, list[int]]) -> Tensor:
        """uint8 [3, size, size]: the box, resized as :func:`benchmarks.data.resampling.resized_crop` does."""
        place, (top, left, height, width) = entry
        image = self.cache[place][:, top : top + height, left : left + width]
        if (height, width) != (self.size, self.size):
            side = (self.size, self.size)
            image = F.interpolate(image.unsqueeze(0), side, mode="bicubic", antialias=True).squeeze(0)
        return image.contiguous()
