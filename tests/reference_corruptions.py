"""The reference of the corruptions, image by image: the package imagecorruptions and the published formulas.

The package (1.1.2) does not run beside today's packages, and its parameters are part of its code. So its source is read
anew, with three mends (no pkg_resources, scikit-image's ``channel_axis``, NumPy's ``float64``) and with the list of
parameters of each function replaced by the ones asked for. Where it departs from the code that made the published
sets (hendrycks/robustness), the published formula stands here in its place: PUBLISHED names those.

Both can be fed this suite's own random numbers, so that what is random can be compared value by value.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from skimage import filters

from benchmarks.data.corruptions import CORRUPTIONS, Draws, parameters

NOISES = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")
"""Drawn from tables here: they can't be fed with numbers, their distribution is compared."""
Pixels = np.ndarray
"""uint8 [H, W, 3]."""


class Parameterised(ast.NodeTransformer):
    """``np.float_`` becomes ``np.float64`` and, if wanted, ``c = [...][severity - 1]`` becomes ``c = _PARAMETERS``."""

    def __init__(self, own_parameters: bool) -> None:
        self.own_parameters = own_parameters

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        targets = [target.id for target in node.targets if isinstance(target, ast.Name)]
        if targets == ["c"] and isinstance(node.value, ast.Subscript) and not self.own_parameters:
            node.value = ast.Name("_PARAMETERS", ast.Load())
        self.generic_visit(node)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.Attribute:
        node.attr = "float64" if node.attr == "float_" else node.attr
        self.generic_visit(node)
        return node


@cache
def package(own_parameters: bool = False) -> dict[str, Any]:
    """The names of the package's module, mended; with its own parameters or with those in ``_PARAMETERS``."""
    spec = importlib.util.find_spec("imagecorruptions")
    assert spec is not None and spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations)))
    tree = ast.parse((folder / "corruptions.py").read_text())
    gone = ("pkg_resources", "scipy.ndimage.interpolation")
    tree.body = [node for node in tree.body if getattr(node, "module", "") not in gone]
    names: dict[str, Any] = {
        "__name__": "imagecorruptions.corruptions",
        "resource_filename": lambda _, path: str(folder / path),
        "map_coordinates": ndimage.map_coordinates,
    }
    tree = ast.fix_missing_locations(Parameterised(own_parameters).visit(tree))
    exec(compile(tree, "imagecorruptions", "exec"), names)
    names["gaussian"] = lambda image, sigma, multichannel=False, **rest: filters.gaussian(
        image, sigma, channel_axis=-1 if multichannel else None, **rest
    )
    return names


def as_shipped(name: str, severity: int, image: Pixels) -> Pixels:
    """What the package's own ``corrupt`` returns: its formulas, its parameters, which are those of ImageNet-C."""
    return np.uint8(package(own_parameters=True)[name](Image.fromarray(image), severity))


def from_package(name: str, image: Pixels, given: Any) -> Pixels:
    """The package's function with the parameters ``given``, as its own ``corrupt`` calls it."""
    names = package()
    names["_PARAMETERS"] = given
    return np.uint8(names[name](Image.fromarray(image), 1))


def zoom_of_published(image: np.ndarray, factor: float) -> np.ndarray:
    """The middle of a square image enlarged; the surplus goes from both ends, the package leaves it at the start."""
    size = len(image)
    part = int(np.ceil(size / factor))
    start = (size - part) // 2
    square = image[start : start + part, start : start + part]
    enlarged = ndimage.zoom(square, (factor, factor, 1), order=1)
    surplus = (len(enlarged) - size) // 2
    return enlarged[surplus : surplus + size, surplus : surplus + size]


def zoom_blur(image: Pixels, end: float, step: float) -> np.ndarray:
    factors = np.arange(1, end, step)
    x = (image / 255.0).astype(np.float32)
    total = np.zeros_like(x)
    for factor in factors:
        total += zoom_of_published(x, factor)
    return np.clip((x + total) / (len(factors) + 1), 0, 1) * 255


def motion_blur(image: Pixels, radius: int, sigma: float) -> np.ndarray:
    """ImageMagick rounds its result to 8 bits; the package truncates it."""
    return np.floor(package()["_motion_blur"](image, radius, sigma, np.random.uniform(-45, 45)) + 0.5)


def snow(
    image: Pixels,
    mean: float,
    std: float,
    zoom: float,
    threshold: float,
    radius: int,
    sigma: float,
    clear: float,
) -> np.ndarray:
    """The flakes are an 8-bit image before and after ImageMagick's blur."""
    x = image.astype(np.float32) / 255.0
    layer = np.random.normal(size=x.shape[:2], loc=mean, scale=std)
    layer = zoom_of_published(layer[..., None], zoom)[..., 0]
    layer[layer < threshold] = 0
    layer = np.uint8(np.clip(layer, 0, 1) * 255)
    layer = np.round(package()["_motion_blur"](layer, radius, sigma, np.random.uniform(-135, -45)))
    layer = layer[..., None] / 255.0
    white = np.maximum(x, cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None] * 1.5 + 0.5)
    return np.clip(clear * x + (1 - clear) * white + layer + np.rot90(layer, k=2), 0, 1) * 255


def frost(image: Pixels, image_share: float, frost_share: float, scale: float) -> np.ndarray:
    """A part of the photograph at the scale of the data set; the package enlarges it by 1.1, with cubic splines."""
    path = package()["resource_filename"]("", f"frost/frost{(number := np.random.randint(5)) + 1}")
    photograph = cv2.imread(f"{path}.{'png' if number < 3 else 'jpg'}")
    photograph = cv2.resize(photograph, (0, 0), fx=scale, fy=scale) if scale != 1 else photograph
    top = np.random.randint(0, photograph.shape[0] - len(image))
    left = np.random.randint(0, photograph.shape[1] - image.shape[1])
    part = photograph[top : top + len(image), left : left + image.shape[1], ::-1]
    return np.clip(image_share * image + frost_share * part, 0, 255)


def elastic_transform(image: Pixels, alpha: float, sigma: float, affine: float) -> np.ndarray:
    """With the affine map; the package leaves it out and has parameters of its own."""
    x = image.astype(np.float32) / 255.0
    height, width = x.shape[:2]
    middle = np.float32([height, width]) // 2
    arm = min(height, width) // 3
    points = np.float32([middle + arm, [middle[0] + arm, middle[1] - arm], middle - arm])
    moved = points + np.random.uniform(-affine, affine, size=(3, 2)).astype(np.float32)
    x = cv2.warpAffine(
        x, cv2.getAffineTransform(points, moved), (width, height), borderMode=cv2.BORDER_REFLECT_101
    )
    across, down = (
        np.float32(
            filters.gaussian(
                np.random.uniform(-1, 1, size=(height, width)), sigma, mode="reflect", truncate=3
            )
            * alpha
        )
        for _ in range(2)
    )
    column, row = np.meshgrid(np.arange(width), np.arange(height))
    planes = [
        ndimage.map_coordinates(x[..., channel], (row + down, column + across), order=1, mode="reflect")
        for channel in range(3)
    ]
    return np.clip(np.stack(planes, -1), 0, 1) * 255


def pixelate(image: Pixels, factor: float) -> np.ndarray:
    """Both ways with Pillow's BOX filter; the package enlarges with NEAREST."""
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize((int(width * factor), int(height * factor)), Image.BOX)
    return np.asarray(small.resize((width, height), Image.BOX))


PUBLISHED: dict[str, Callable[..., np.ndarray]] = {
    function.__name__: function
    for function in (zoom_blur, motion_blur, snow, frost, elastic_transform, pixelate)
}


class Recorded(Draws):
    """Keeps every draw, so that the reference can be given the same numbers."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.log: list[np.ndarray] = []

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        return self._kept(super().uniform(*shape, low=low, high=high))

    def normal(self, *shape: int) -> torch.Tensor:
        return self._kept(super().normal(*shape))

    def integers(self, *shape: int, low: int = 0, high: int) -> torch.Tensor:
        drawn = super().integers(*shape, low=low, high=high)
        self.log[-1] = drawn.numpy().copy()  # in place of the uniform number it was made of
        return drawn

    def _kept(self, drawn: torch.Tensor) -> torch.Tensor:
        self.log.append(drawn.numpy().copy())
        return drawn


def fed(name: str, log: Sequence[np.ndarray], image: int, given: dict[str, Any]) -> Iterator[Any]:
    """The numbers that the reference asks for, in its order."""
    if name == "glass_blur":
        for step in log:
            height, width = step.shape[2:]
            distance = given["distance"]
            for row in range(height - distance, distance, -1):
                for column in range(width - distance, distance, -1):
                    yield step[image, :, row, column]
    else:
        yield from (drawn[image] for drawn in log)


@contextmanager
def numpy_random(numbers: Iterator[Any]) -> Iterator[None]:
    """numpy.random with the given numbers; uniform numbers and integers come as they are, normal ones as standard."""

    def normal(loc: float = 0.0, scale: float = 1.0, size: Any = None) -> Any:
        return loc + scale * next(numbers).reshape(size)

    def uniform(low: float = 0.0, high: float = 1.0, size: Any = None) -> Any:
        return np.reshape(next(numbers), size) if size is not None else float(next(numbers))

    def randint(low: int, high: int | None = None, size: Any = None) -> Any:
        drawn = next(numbers)
        return int(drawn * (high - low)) if size is None and high is not None else drawn

    with mock.patch.multiple(np.random, normal=normal, uniform=uniform, randint=randint):
        yield


def reference(name: str, image: Pixels, entry: Any) -> Pixels:
    """What the reference makes of one image with a table's entry for one severity; random by numpy.random."""
    if name in PUBLISHED:
        return np.uint8(PUBLISHED[name](image, **parameters(name, entry)))
    return from_package(name, image, entry)


def with_same_draws(
    name: str, severity: int, images: torch.Tensor, entry: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """(this suite's result, the reference's with the same random numbers), uint8 [N, 3, H, W]."""
    given = parameters(name, entry)
    draws = Recorded(0, name, severity, torch.arange(len(images)))
    ours = CORRUPTIONS[name](images, draws, **given)
    if ours.dtype != torch.uint8:
        ours = ours.clamp(0, 255).to(torch.uint8)
    theirs = []
    for number, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        numbers = iter(fed(name, draws.log, number, given))
        if name == "frost":
            numbers = iter((draws.log[0][number], *draws.log[1][number]))
        with numpy_random(numbers):
            theirs.append(reference(name, np.ascontiguousarray(image), entry))
    return ours, torch.from_numpy(np.stack(theirs)).permute(0, 3, 1, 2)
