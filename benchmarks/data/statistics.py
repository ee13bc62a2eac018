"""Mean and standard deviation of the training images, for data sets without constants of the papers."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 4096


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of each channel of uint8 [N, C, H, W] on the pixel scale 0..1, over all images and pixels.

    Exact: they come from counts of the 256 values. A channel that never changes gets the standard deviation 1.
    """
    means, deviations = [], []
    values = torch.arange(256, dtype=torch.float64) / 255
    for channel in images.unbind(1):
        counts = sum(torch.bincount(part.flatten(), minlength=256) for part in channel.split(CHUNK))
        share = torch.as_tensor(counts, dtype=torch.float64) / channel.numel()
        mean = float((share * values).sum())
        means.append(mean)
        deviations.append(float((share * (values - mean) ** 2).sum().sqrt()) or 1.0)
    return tuple(means), tuple(deviations)
