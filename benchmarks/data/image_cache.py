"""Decoded, resized images on disk: what a stream reads in the place of image files, of any number and size.

    <cache>/<key>/00000.images, 00001.images, ...     SHARD images each, the last one fewer

A shard is height and width of its images (int32 [n, 2]) followed by their pixels (uint8, height x width x 3 each). It
appears by atomic rename, so that a build that was interrupted goes on with the shards that are missing. The key is
made of the files' names, sizes and times of change and of what is done to the images.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL import Image, ImageFile
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.data.decode import DAMAGES, more_than_8_bits, why_unreadable
from benchmarks.data.image_folder import Listing, named
from benchmarks.errors import UserError
from benchmarks.terminal import note

VERSION = 2
"""Raise it when the layout or the decoding changes."""
SHARD = 512
TELL_SECONDS = 30.0


@dataclass(frozen=True)
class Preparation:
    """What is done to an image before it is kept: bicubic resizing, with antialiasing, and a central crop.

    Sizes are rounded as by torchvision's Resize and CenterCrop, for ``share`` as in
    :func:`benchmarks.data.resampling.central_boxes`.

    Args:
        side: pixels of the shorter side. Without a crop, smaller images stay as they are, and 0 leaves all so.
        crop: side of the central square that is cut out then; 0: none.
        squash: resize every image to ``side`` x ``side`` whatever its shape.
        share: first cut out the central square with this share of the shorter side, then resize that to ``side``, also
            if it is smaller; 0: don't.
    """

    side: int
    crop: int = 0
    squash: bool = False
    share: float = 0.0

    def __call__(self, image: Image.Image) -> Image.Image:
        shorter = min(image.size)
        if self.share:
            cut = max(1, round(shorter * self.share))
            left, top = (image.width - cut) // 2, (image.height - cut) // 2
            image = image.crop((left, top, left + cut, top + cut))
        if self.squash or self.share:
            image = image.resize((self.side, self.side), Image.Resampling.BICUBIC)
        elif self.side and (shorter > self.side or (self.crop and shorter != self.side)):
            size = [length * self.side // shorter for length in image.size]
            image = image.resize((size[0], size[1]), Image.Resampling.BICUBIC)
        if self.crop:
            left, top = round((image.width - self.crop) / 2), round((image.height - self.crop) / 2)
            image = image.crop((left, top, left + self.crop, top + self.crop))
        return image


class ImageCache:
    """The prepared images of a listing, built where it is missing, mapped into memory.

    Args:
        folder: where caches are kept.
        processes: how many decode at once.

    Raises:
        UserError: images that can't be read, named and counted; no space left, or the folder can't be written.
    """

    def __init__(self, listing: Listing, preparation: Preparation, folder: Path, processes: int) -> None:
        key = json.dumps([VERSION, SHARD, asdict(preparation), listing.signature()])
        self.folder = folder / hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
        self.listing, self.preparation = listing, preparation
        self.shards = [self.folder / f"{n:05}.images" for n in range(-(-len(listing) // SHARD))]
        self._build(processes)
        sizes = [_sizes(path, self.count(number)) for number, path in enumerate(self.shards)]
        self.sizes = torch.from_numpy(np.concatenate(sizes).astype(np.int64))
        areas = self.sizes.prod(1) * 3
        starts = areas.cumsum(0) - areas
        self._starts = starts - starts[::SHARD].repeat_interleave(SHARD)[: len(starts)]
        self._opened: dict[int, np.memmap] = {}

    def __len__(self) -> int:
        return len(self.listing)

    def count(self, shard: int) -> int:
        """How many images a shard holds."""
        return min(SHARD, len(self.listing) - shard * SHARD)

    def __getitem__(self, index: int) -> Tensor:
        """An image, uint8 [3, height, width], channels last in memory."""
        shard = index // SHARD
        if shard not in self._opened:
            self._opened[shard] = np.memmap(self.shards[shard], np.uint8, "c", offset=8 * self.count(shard))
        height, width = self.sizes[index].tolist()
        start = int(self._starts[index])
        pixels = self._opened[shard][start : start + height * width * 3]
        return torch.from_numpy(pixels.reshape(height, width, 3)).permute(2, 0, 1)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": {}}  # every process maps the files itself

    def _build(self, processes: int) -> None:
        """Make the shards that are missing; whoever comes second waits and finds them."""
        if not self._missing():
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "lock"):
                self._fill(self._missing(), processes)
        except OSError as error:
            raise UserError(
                f"decoded images can't be kept in {self.folder}: {error.strerror}; choose another cache folder"
            ) from error

    def _missing(self) -> list[int]:
        return [n for n, path in enumerate(self.shards) if not _whole(path, self.count(n))]

    def _fill(self, missing: list[int], processes: int) -> None:
        total, done, told = sum(map(self.count, missing)), 0, time.monotonic()
        if not missing:
            return
        note(f"decoding {total:,} images of {self.listing.folder} into {self.folder}, once")
        problems: list[str] = []
        begun = time.monotonic()
        loader = DataLoader(_Shards(self, missing), batch_size=None, num_workers=processes)
        for count, found, failed in loader:
            if failed:  # finished shards are kept; the next try goes on with the others
                raise UserError(f"decoded images can't be kept in {self.folder}: {failed}")
            if not done and not found:
                self._check_room(missing, total - count)
            done, problems = done + count, problems + found
            if time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                note(f"{done:,} of {total:,} images decoded, {done / (told - begun):.0f} images/s")
        if problems:
            raise UserError(
                f"{self.listing.folder}: {len(problems)} of {len(self.listing)} images can't be used: "
                f"{named(problems)}; replace or remove them"
            )

    def _check_room(self, missing: list[int], images: int) -> None:
        """Whether ``images`` more fit on the disk, judged by the first shard, before hours are spent on them."""
        written = [(path.stat().st_size, n) for n in missing if (path := self.shards[n]).is_file()]
        needed = images * sum(size for size, _ in written) // sum(self.count(n) for _, n in written)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise UserError(
                f"{images:,} more decoded images of {self.listing.folder} need about {needed / 1e9:.0f} GB in "
                f"{self.folder}, {free / 1e9:.0f} GB are free; make room or choose another cache folder"
            )


class _Shards(Dataset[tuple[int, list[str], str]]):
    """Shards as the items of a loader, so that its processes write them."""

    def __init__(self, cache: ImageCache, missing: list[int]) -> None:
        self.cache, self.missing = cache, missing

    def __len__(self) -> int:
        return len(self.missing)

    def __getitem__(self, place: int) -> tuple[int, list[str], str]:
        """(how many images were looked at, which can't be used, why writing failed); raises nothing."""
        shard = self.missing[place]
        start, count = shard * SHARD, self.cache.count(shard)
        images, problems = [], []
        for file in self.cache.listing.files[start : start + count]:
            try:
                images.append(_decode(self.cache.listing.folder / file, self.cache.preparation))
            except DAMAGES as error:
                problems.append(f"{file} ({why_unreadable(self.cache.listing.folder / file, error)})")
        return count, problems, "" if problems else _write(self.cache.shards[shard], images)


def _decode(path: Path, preparation: Preparation) -> np.ndarray:
    """One image as uint8 [height, width, 3]; grey, palette and CMYK become RGB, transparency is dropped."""
    assert not ImageFile.LOAD_TRUNCATED_IMAGES  # a truncated file is an error
    with Image.open(path) as image:
        if more_than_8_bits(image):
            raise ValueError("more than 8 bits a channel; save as 8 bits")
        return np.asarray(preparation(image.convert("RGB")))


def _write(path: Path, images: list[np.ndarray]) -> str:
    """Write a shard whole or not at all; why it can't be written, or nothing."""
    partial = path.with_suffix(f".partial-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(np.array([image.shape[:2] for image in images], np.int32).tobytes())
            for image in images:
                file.write(image.tobytes())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno != errno.ENOSPC:
            return str(error.strerror)
        free = shutil.disk_usage(path.parent).free
        return f"the disk is full ({free:,} bytes free); make room or choose another cache folder, then go on"
    return ""


def _sizes(path: Path, count: int) -> np.ndarray:
    return np.fromfile(path, np.int32, 2 * count).reshape(-1, 2)


def _whole(path: Path, count: int) -> bool:
    """Whether the file is there and as long as its first bytes say."""
    try:
        sizes = _sizes(path, count).astype(np.int64)
        return len(sizes) == count and path.stat().st_size == 8 * count + int(sizes.prod(1).sum()) * 3
    except (OSError, ValueError):
        return False
