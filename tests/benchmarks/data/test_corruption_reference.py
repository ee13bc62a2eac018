"""Every corruption and severity against the reference code, on genuine CIFAR-10 images.

What is random gets the same random numbers and is compared value by value; the noises, which are drawn from tables
here, are compared in distribution. ``reports/corruptions.md`` has the figures of more images.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from genuine_images import ABSENT, cifar10_test_images
from reference_corruptions import NOISES, reference, with_same_draws
from torch import Tensor

from benchmarks.data.corruptions import SEVERITIES, corrupt, read_table

FEW = 2
TABLES = {"cifar": read_table("cifar"), "imagenet": read_table("imagenet")}


@pytest.fixture(scope="module")
def images() -> Tensor:
    found = cifar10_test_images()
    if found is None:
        pytest.skip(ABSENT)
    return found[10 : 10 + FEW]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", [name for name in TABLES["cifar"] if name not in NOISES])
def test_value_by_value(name: str, table: str, images: Tensor) -> None:
    for severity in SEVERITIES:
        if name == "motion_blur" and (table, severity) == ("imagenet", 5):
            continue  # 41 pixels long: the package leaves out what is beyond an image of 32
        ours, theirs = with_same_draws(name, severity, images, TABLES[table][name][severity - 1])
        off = (ours.int() - theirs.int()).abs()
        # OpenCV 4 rounds the places of the affine map to 1/32 pixel, as it did for the published sets; 5 does not.
        moved = name == "elastic_transform" and int(cv2.__version__.split(".")[0]) >= 5
        assert float((off > 0).float().mean()) <= (0.3 if moved else 1e-3), severity
        assert int(off.max()) <= (12 if moved else 1), severity


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", NOISES)
def test_noise_in_distribution(name: str, table: str, images: Tensor) -> None:
    """On plain images of all levels: mean and histogram. The reference draws from a seed, so the test can't flake."""
    np.random.seed(NOISES.index(name))
    levels = torch.arange(0, 256, 15, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 48, 48)
    for severity in SEVERITIES:
        entry = TABLES[table][name][severity - 1]
        ours = corrupt(levels.contiguous(), name, severity, TABLES[table]).flatten(1).numpy()
        theirs = np.stack([reference(name, image, entry) for image in levels.permute(0, 2, 3, 1).numpy()])
        for a, b in zip(ours, theirs.reshape(len(theirs), -1), strict=True):
            error = np.sqrt((a.var() + b.var()) / a.size) + 1e-9
            assert abs(a.mean() - b.mean()) < 5 * error
            distance = (
                np.abs(np.cumsum(np.bincount(a, minlength=256) - np.bincount(b, minlength=256))).max()
                / a.size
            )
            assert distance < 2.3 * np.sqrt(2 / a.size)  # Kolmogorov-Smirnov at 5e-5
