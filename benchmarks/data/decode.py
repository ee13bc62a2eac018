"""From image files to one uint8 tensor, which is kept so that the files are decoded once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image, ImageFile, UnidentifiedImageError, __version__
from torch import Tensor

from benchmarks.data.image_folder import NAMED, Listing, named
from benchmarks.errors import UserError, one_line
from benchmarks.terminal import note, warn

MODES = {1: "L", 3: "RGB"}
VERSION = 2
"""Raise it when decoding changes, so that what was kept is not used any more."""
DAMAGES = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What decoders raise."""
MANY = 2000
"""From this many images on a person is told what is going on."""


class _UnusableError(Exception):
    """Why an image can't be used, and which setting would mend it."""


def decode(listing: Listing, channels: int | None = None, size: int | None = None) -> Tensor:
    """All images of a listing as uint8 [N, channels, size, size].

    Args:
        channels: 1 or 3: images of any 8-bit mode are converted, transparency is dropped. None: all images must be
            grey, or all colour.
        size: pixels of the side: images are resized (bilinear, antialiased, the shorter side to ``size``) and cropped
            at the centre. None: all images must be square and of one size.

    Raises:
        UserError: images that can't be read or used, named and counted; more of them than the memory holds.
    """
    mode = MODES[channels] if channels else None
    problems: dict[str, str] = {}
    shape = _first_shape(listing, mode, size, problems)
    needed, free = len(listing) * int(np.prod(shape)), psutil.virtual_memory().available
    if needed > free:
        raise UserError(
            f"the {len(listing):,} images of {listing.folder} need {needed:,} bytes of memory, {free:,} are free; "
            "choose a smaller dataset.size"
        )
    images = torch.empty((len(listing), *shape), dtype=torch.uint8)

    def place(index: int) -> None:
        file = listing.files[index]
        try:
            pixels = _pixels(listing.folder / file, mode, size)
            if pixels.shape != shape:
                raise _UnusableError(_differs(pixels.shape, shape))
            images[index] = torch.from_numpy(pixels)
        except _UnusableError as error:
            problems[file] = str(error)

    if shape != (0,):
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            list(pool.map(place, range(len(listing))))
    if problems:
        raise _refused(listing, problems)
    return images


def why_unreadable(path: Path, error: Exception) -> str:
    """What is wrong with an image that raised one of ``DAMAGES`` when it was decoded."""
    if path.is_file() and not path.stat().st_size:
        return "empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return "cut off" if "truncated" in str(error).lower() else one_line(error)


def more_than_8_bits(image: ImageFile.ImageFile) -> bool:
    """Whether an opened image, not yet loaded, has more than 8 bits a channel, which converting would cut off."""
    if image.format == "PPM":  # may be decoded by (mode, largest value), and is scaled down then
        decoder = image.tile[0][3]
        if isinstance(decoder, tuple) and decoder[-1] > 255:
            return True
    return image.mode[0] in "IF" or ";16" in str(image.tile)


def _first_shape(
    listing: Listing, mode: str | None, size: int | None, problems: dict[str, str]
) -> tuple[int, ...]:
    """The shape of the first image that can be used, which all others must have."""
    for file in listing.files:
        try:
            return _pixels(listing.folder / file, mode, size).shape
        except _UnusableError as error:
            problems[file] = str(error)
    raise _refused(listing, problems)


def _pixels(path: Path, mode: str | None, size: int | None) -> np.ndarray:
    """One image as uint8 [C, H, W]."""
    try:
        with Image.open(path) as file:
            if more_than_8_bits(file):
                raise _UnusableError("more than 8 bits a channel; save as 8 bits")
            file.load()
            image: Image.Image = file
            if mode is not None:
                image = image.convert(mode)
            elif image.mode not in MODES.values():
                raise _UnusableError(f"mode {image.mode}; dataset.channels=3 (or 1) converts")
            if size is not None:
                image = _fit(image, size)
            elif image.width != image.height:
                raise _UnusableError(
                    f"{image.width}x{image.height} pixels, not square; dataset.size=N resizes"
                )
            pixels = np.array(image)
    except DAMAGES as error:
        raise _UnusableError(f"can't be read: {why_unreadable(path, error)}") from None
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _fit(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to ``size`` and crop at the centre."""
    if image.size == (size, size):
        return image
    scale = size / min(image.size)
    width, height = max(size, round(image.width * scale)), max(size, round(image.height * scale))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _differs(shape: tuple[int, ...], expected: tuple[int, ...]) -> str:
    if shape[0] != expected[0]:
        kinds = {1: "grey", 3: "colour"}
        return f"{kinds[shape[0]]} among {kinds[expected[0]]} ones; dataset.channels={expected[0]} converts"
    return f"{shape[2]}x{shape[1]} pixels among {expected[2]}x{expected[1]} ones; dataset.size=N resizes"


def _refused(listing: Listing, problems: dict[str, str]) -> UserError:
    """One line for all images that can't be used: how many, and of each reason the first ones."""
    reasons: dict[str, list[str]] = {}
    for file in sorted(problems):
        reasons.setdefault(problems[file], []).append(file)
    said = [f"{named(files)} ({reason})" for reason, files in list(reasons.items())[:NAMED]]
    more = sum(map(len, list(reasons.values())[NAMED:]))
    return UserError(
        f"{listing.folder}: {len(problems)} of {len(listing)} images can't be used: {', '.join(said)}"
        + (f" and {more} more for other reasons" if more else "")
    )


def kept(cache: Path, key: object, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What ``make`` returns, from ``cache`` where it was made before for an equal ``key`` (anything JSON can say).

    The tensors are mapped into memory, not copied. A cache that can't be written is a warning.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    text = json.dumps([VERSION, __version__, key], sort_keys=True)
    path = cache / f"{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError):  # a damaged one is made anew
        pass
    tensors = make()
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial)
        partial.replace(path)
        return load_file(path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        warn(
            f"decoded images can't be kept in {cache}: {one_line(error)}; they will be decoded again next time"
        )
    return tensors


def decoded(listing: Listing, cache: Path, channels: int | None = None, size: int | None = None) -> Tensor:
    """:func:`decode`, done once for files that do not change."""

    def make() -> dict[str, Tensor]:
        if len(listing) >= MANY:
            note(f"decoding {len(listing):,} images of {listing.folder}, once")
        return {"images": decode(listing, channels, size)}

    return kept(cache, [listing.signature(), channels, size], make)["images"]
