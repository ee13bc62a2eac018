"""Image corruptions at five severities: the 19 of CIFAR-10-C and ImageNet-C, and the 15 of the two C-bar sets.

    corrupt(images, "fog", 3, table="cifar")                 # uint8 [N, C, H, W] in, the same out
    corrupt(part, "fog", 3, table="cifar", indices=numbers)  # the same pixels for the same numbers

**What a severity means** is data: a table in ``configs/corruption`` (``cifar``, ``tinyimagenet``, ``imagenet``,
``cifar_cbar``, ``imagenet_cbar``, ``digits``), which a data set's config names.

**Random numbers** are a pure function of (seed, image index, corruption, severity): see
:mod:`~benchmarks.data.corruptions.draws`. Batch size, order and the other images change nothing. Integer operations
and float64 sums in a fixed order make the result the same on all devices too, but for the rare pixel that a last bit
of a sine, a logarithm or an FFT moves over a whole level.

**One file a family:** noise, blur, weather, spatter, digital, cbar_noise, cbar_warp; a corruption is a function
``f(images, draws, *parameters)`` that returns float values from 0 to 255, which are clipped and truncated to 8 bits
as the reference does, or uint8. It works on the whole batch; only JPEG runs image by image, in threads, as it goes
through the real codec.

**Grey images** of one channel: a corruption that has colours of its own (``COLOURED``) sees three equal channels, and
the brightness of its result is kept. All others work on one channel as on three.

**Differences from the published files.** CIFAR-10-C was made without a seed, so no generator can give its noise again;
formulas and parameters are its own. Tiny-ImageNet-C, ImageNet-C and ImageNet-C-bar were stored as JPEG of quality 85
after the corruption; these images are not (``weightaug corrupt --format jpeg`` does it). Motion blur and snow went
through ImageMagick, whose formula this is. ``reports/corruptions.md`` measures all types against the reference code.

Sources: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
ICLR 2019; Mintun, Kirillov and Xie, "On Interaction Between Augmentations and Corruptions in Natural Corruption
Robustness", NeurIPS 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.data.corruptions.draws import Draws
from benchmarks.data.corruptions.table import (
    CORRUPTIONS,
    SEVERITIES,
    Corruption,
    ParameterTable,
    check_severities,
    parameters,
    read_table,
    without_missing,
)
from benchmarks.errors import unknown_name
from weightaug.transfer import send

__all__ = [
    "COLOURED",
    "CORRUPTIONS",
    "SEVERITIES",
    "Corruption",
    "Draws",
    "ParameterTable",
    "check_severities",
    "corrupt",
    "parameters",
    "read_table",
    "without_missing",
]

COLOURED = frozenset(
    ("frost", "spatter", "saturate", "jpeg_compression", "plasma_noise", "transverse_chromatic_abberation")
)
BLOCK_VALUES = {"cpu": 1 << 18, "cuda": 1 << 26}
"""How many values are worked on at once: on a CPU as many as stay in its cache."""


def corrupt(
    images: Tensor,
    name: str,
    severity: int,
    table: ParameterTable | str,
    indices: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """The images with one corruption, on their device.

    Args:
        images: uint8 [N, C, H, W] with one channel or three (RGB).
        severity: 1 to 5.
        table: the parameters, or the name of a table.
        indices: int64 [N], the images' numbers in their data set; 0 ... N - 1 by default.
        seed: other numbers for all images.

    Returns:
        uint8 [N, C, H, W]: a function of (image, name, parameters, severity, index, seed) for each image by itself.

    Raises:
        UserError: an unknown corruption or table; frost without its photographs.
        ValueError: images of another type or shape, or a severity that does not exist.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images are {images.dtype} {[*images.shape]}; give uint8 [N, C, H, W] with 1 or 3 channels"
        )
    if severity not in SEVERITIES:
        raise ValueError(f"severity is {severity}; it is a whole number from 1 to {SEVERITIES[-1]}")
    if isinstance(table, str):
        table = read_table(table)
    if name not in table:
        raise unknown_name("corruption of the table", name, table)
    given = parameters(name, table[name][severity - 1])
    if indices is None:
        indices = torch.arange(len(images), device=images.device)
    block = max(
        1, BLOCK_VALUES.get(images.device.type, 1 << 26) // max(1, images[0].numel() if len(images) else 1)
    )
    result = torch.empty_like(images, memory_format=torch.contiguous_format)
    for start in range(0, len(images), block):
        part = slice(start, start + block)
        draws = Draws(seed, name, severity, send(indices[part], images.device))
        result[part] = _corrupted(images[part], name, draws, given)
    return result


def _corrupted(images: Tensor, name: str, draws: Draws, given: dict[str, float]) -> Tensor:
    grey = images.shape[1] == 1 and name in COLOURED
    result = CORRUPTIONS[name](images.expand(-1, 3, -1, -1) if grey else images, draws, **given)
    if result.dtype != torch.uint8:
        result = result.clamp_(0, 255).to(torch.uint8)
    if grey:  # ITU-R 601 brightness in whole numbers, as Pillow's
        weights = torch.tensor([19595, 38470, 7471], device=images.device).view(1, 3, 1, 1)
        result = ((result.long() * weights).sum(1, keepdim=True) + 32768 >> 16).to(torch.uint8)
    return result
