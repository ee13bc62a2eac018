"""Random resized crops: which boxes, and cutting them out of a batch on the device."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

ATTEMPTS = 10
LARGEST_RATIO = 4 / 3
"""Width to height of a box is between the inverse of this and this."""


def random_boxes(sizes: Tensor, min_area: float, generator: Generator) -> Tensor:
    """Boxes of random area, shape and place, int64 [N, 4]: top, left, height, width.

    The area's share is uniform on [min_area, 1], the logarithm of width / height uniform between those of 3/4 and
    4/3; the first of ten such draws that fits into the image is placed uniformly. Where none fits: the largest
    central box with a ratio in that range. As torchvision's RandomResizedCrop (Szegedy et al. 2014, the DAMP paper's
    "Inception crop"; TensorFlow's asks besides that a box covers a tenth of the image).

    Args:
        sizes: height and width of each image, int64 [N, 2].
    """
    draw = torch.rand(len(sizes), ATTEMPTS, 2, generator=generator)
    place = torch.rand(len(sizes), 2, generator=generator)
    most = sizes.unsqueeze(1).float()  # [N, 1, 2]
    area = most.prod(2) * (min_area + (1 - min_area) * draw[..., 0])
    ratio = torch.exp((2 * draw[..., 1] - 1) * math.log(LARGEST_RATIO))
    drawn = torch.stack([(area / ratio).sqrt().round(), (area * ratio).sqrt().round()], 2)  # height, width
    fits = ((drawn > 0) & (drawn <= most)).all(2)
    first = fits.int().argmax(1)
    chosen = drawn[torch.arange(len(sizes)), first].long()
    central = torch.minimum(sizes, (sizes.flip(1) * LARGEST_RATIO).round().long())
    found = fits.any(1, keepdim=True)
    extent = torch.where(found, chosen, central)
    free = sizes - extent
    corner = torch.where(found, (place * (free + 1)).long().minimum(free), free // 2)
    return torch.cat([corner, extent], 1)


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
