"""Image files of any mode, as 8-bit tensors and back.

Grey stays grey and everything else becomes RGB. Transparency is set aside and put back (JPEG has none). 16-bit grey
becomes 8-bit by its upper byte. Of an animation the first picture is taken. Turns in the EXIF data are not applied, as
data loaders do not apply them.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

JPEG_QUALITY = 85
"""That of the published ImageNet-C, Tiny-ImageNet-C and ImageNet-C-bar."""
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")


class UnreadableError(Exception):
    """Why an image can't be used, in one line."""


@dataclass(frozen=True)
class Picture:
    """One image: uint8 [1 or 3, H, W], its transparency uint8 [H, W] if it has one, its file's mode and SHA-256."""

    pixels: Tensor
    alpha: np.ndarray | None
    mode: str
    checksum: str


def read_picture(path: Path, checksum: str, size: int | None = None) -> Picture:
    """The image of a file, with ``size`` the middle of it: shorter side of so many pixels, then a square cut out.

    Raises:
        UnreadableError: no image, a damaged one or one of a mode that has no 8-bit meaning.
    """
    try:
        with Image.open(path) as opened:
            mode = opened.mode
            opened.load()
            image, alpha = _parts(opened)
    except Image.UnidentifiedImageError:
        empty = path.stat().st_size == 0
        raise UnreadableError("empty (0 bytes)" if empty else "not an image that can be read") from None
    except UnreadableError:
        raise
    except (
        Exception
    ) as error:  # decoders raise many kinds: OSError, SyntaxError, ValueError, struct.error, ...
        raise UnreadableError(f"damaged: {error or type(error).__name__}") from error
    if size is not None:
        image, alpha = _middle(image, size), alpha and _middle(alpha, size)
    pixels = np.array(image)
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    transparency = None if alpha is None else np.array(alpha)
    return Picture(torch.from_numpy(np.ascontiguousarray(planes)), transparency, mode, checksum)


def _parts(opened: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The image as L or RGB, and its transparency."""
    if opened.mode == "F":
        raise UnreadableError(
            "values are floating-point numbers, whose range is not known; store it in 8 or 16 bits"
        )
    if opened.mode.startswith("I"):
        values = np.asarray(opened)
        if values.min() < 0 or values.max() > 65535:
            raise UnreadableError("values are 32-bit numbers beyond 16 bits; store it in 8 or 16 bits")
        return Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8)), None
    colours = "L" if opened.mode in GREY else "RGB"
    if opened.has_transparency_data:
        whole = opened.convert("LA" if colours == "L" else "RGBA")
        return whole.convert(colours), whole.getchannel("A")
    return opened.convert(colours), None


def _middle(image: Image.Image, size: int) -> Image.Image:
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + size, top + size))


def write_picture(pixels: Tensor, alpha: np.ndarray | None, kind: str, quality: int | None) -> bytes:
    """The file's content for uint8 [1 or 3, H, W]."""
    planes = pixels.numpy()
    image = Image.fromarray(
        planes[0] if len(planes) == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0))
    )
    file = io.BytesIO()
    if kind == "jpeg":
        image.save(file, "JPEG", quality=quality, optimize=True)
        return file.getvalue()
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    image.save(file, "PNG")
    return file.getvalue()
