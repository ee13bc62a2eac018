"""Random resized crops: which boxes, and cutting them out of a batch on the device."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

ATTEMPTS = 10
LARGEST_RATIO = 4 / 3
"""Width to height of a box is between the inverse of this and this."""


def random_boxes(
    sizes: Tensor, min_area: float, generator: Generator, kind: str = "torchvision", covered: float = 0.0
) -> Tensor:
    """Boxes of random area, shape and place, int64 [N, 4]: top, left, height, width (Szegedy et al. 2014).

    The first of ten draws that fits into the image is placed uniformly. Where none fits: the largest central box with
    a ratio in the range. The DAMP paper's "Inception crop" is ``official``.

    Args:
        sizes: height and width of each image, int64 [N, 2].
        min_area: the least share of the image's area.
        kind: ``torchvision``: the area's share is uniform on [min_area, 1], the logarithm of width / height uniform
            between those of 3/4 and 4/3, as in RandomResizedCrop. ``official``: width / height is uniform, and so is
            the height, among those that fit: TensorFlow's sample_distorted_bounding_box. Small boxes are more frequent.
        covered: boxes with a smaller share of the area are drawn again (TensorFlow's min_object_covered).
    """
    draw = torch.rand(len(sizes), ATTEMPTS, 2, generator=generator)
    place = torch.rand(len(sizes), 2, generator=generator)
    extent = torch.minimum(sizes, (sizes.flip(1) * LARGEST_RATIO).round().long())
    corner = (sizes - extent) // 2
    left = torch.arange(len(sizes))  # without a box
    for attempt in range(ATTEMPTS):
        here = left if attempt else slice(None)
        most = sizes[here]
        drawn = PROPOSALS[kind](most, min_area, draw[here, attempt])
        fits = ((drawn > 0) & (drawn <= most)).all(1)
        if kind == "official":
            share = drawn.prod(1) / most.prod(1)
            fits &= (share >= max(min_area, covered)) & (share <= 1)
        found = left[fits]
        extent[found] = drawn[fits].long()
        free = sizes[found] - extent[found]
        steps = (
            free + 1 if kind == "torchvision" else free
        )  # TensorFlow's last place is the one before the last
        corner[found] = (place[found] * steps).long().minimum(free)
        left = left[~fits]
    return torch.cat([corner, extent], 1)


def _by_area(sizes: Tensor, min_area: float, draw: Tensor) -> Tensor:
    """Height and width, float [n, 2]."""
    area = sizes.float().prod(1) * (min_area + (1 - min_area) * draw[:, 0])
    ratio = torch.exp((2 * draw[:, 1] - 1) * math.log(LARGEST_RATIO))
    return torch.stack([(area / ratio).sqrt().round(), (area * ratio).sqrt().round()], 1)


def _by_height(sizes: Tensor, min_area: float, draw: Tensor) -> Tensor:
    """Height and width, float [n, 2]."""
    height, width = sizes.float().unbind(1)
    whole = height * width
    ratio = 1 / LARGEST_RATIO + draw[:, 1] * (LARGEST_RATIO - 1 / LARGEST_RATIO)
    most = (whole / ratio).sqrt().round()
    most = torch.where((most * ratio).round() > width, ((width + 0.5) / ratio).floor(), most)
    most = (most - ((most * ratio).round() > width).float()).minimum(height)
    least = (min_area * whole / ratio).sqrt().round().minimum(most)
    drawn = (least + (draw[:, 0] * (most - least + 1)).floor()).minimum(most)
    small, large = (
        (drawn * (drawn * ratio).round() < min_area * whole),
        drawn * (drawn * ratio).round() > whole,
    )
    drawn = drawn + small.float() - large.float()  # of rounding
    return torch.stack([drawn, (drawn * ratio).round()], 1)


PROPOSALS = {"torchvision": _by_area, "official": _by_height}


def central_boxes(sizes: Tensor, share: float) -> Tensor:
    """The central square whose side is ``share`` of the shorter side, int64 [N, 4] as in :func:`random_boxes`."""
    side = (sizes.amin(1, keepdim=True) * share).round().long().clamp(min=1)
    return torch.cat([(sizes - side) // 2, side.expand(-1, 2)], 1)


def resized_crop(images: Tensor, boxes: Tensor) -> Tensor:
    """Cut ``boxes`` [N, 4] out of uint8 [N, C, H, W] and resize each to H x W: bicubic, with antialiasing.

    Resizing is separable and linear, so each image has one matrix for its rows and one for its columns. The same as
    Pillow's and torch's bicubic resize of the cut image, up to one grey level of rounding.
    """
    height, width = images.shape[2:]
    rows = _matrices(boxes[:, 0], boxes[:, 2], height)
    columns = _matrices(boxes[:, 1], boxes[:, 3], width)
    x = torch.einsum("nchw,nvw->nchv", images.float(), columns).round().clamp(0, 255)
    return torch.einsum("nchv,nuh->ncuv", x, rows).round().clamp(0, 255).to(torch.uint8)


def _matrices(start: Tensor, length: Tensor, size: int) -> Tensor:
    """The resampling weights [N, size, size] from the pixels start .. start + length - 1 to ``size`` new ones."""
    grid = torch.arange(size, device=start.device, dtype=torch.float32)
    scale = (length / size).view(-1, 1, 1)
    centre = start.view(-1, 1, 1) + (grid.view(1, -1, 1) + 0.5) * scale
    distance = ((grid.view(1, 1, -1) + 0.5 - centre) / scale.clamp(min=1)).abs()
    # Keys' cubic kernel with a = -1/2
    near = (1.5 * distance - 2.5) * distance.square() + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))
    inside = (grid >= start.unsqueeze(1)) & (grid < (start + length).unsqueeze(1))
    weights = weights * inside.unsqueeze(1)
    return weights / weights.sum(2, keepdim=True)
