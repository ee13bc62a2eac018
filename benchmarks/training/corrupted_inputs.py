"""SGD on inputs with one of the data set's own corruptions, as the harness runs it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from baselines import CorruptedSGD
from benchmarks.data.corruptions import SEVERITIES, corrupt
from benchmarks.data.dataset import DataSet, Source
from benchmarks.errors import unknown_name
from weightaug.random import RandomSource


def corrupted_sgd(
    model: nn.Module,
    *,
    source: Source,
    data: DataSet | None = None,
    corruption: str = "gaussian_noise",
    severity: int = 3,
    fraction: float = 0.5,
    seed: int = 0,
    random: RandomSource | None = None,
) -> CorruptedSGD:
    """:class:`baselines.CorruptedSGD` whose g is one of the harness's corruptions.

    Training batches arrive normalised. They are turned back into 8-bit images, which is exact, corrupted as the
    test images are (with noise of their own) and normalised again.

    Args:
        source: tells what the severities mean for this data set.
        data: tells the normalisation; needed when a step is run.
        corruption: a name in the data set's ``corruptions``.
        severity: 1 to 5. The DAMP paper does not state the one it trained with; 3 is this suite's choice.
        fraction: share of every batch that is corrupted; half of it in the paper's Algorithm 2.

    Raises:
        UserError: the data set does not have the corruption.
        ValueError: severity or fraction outside its range.
    """
    if corruption not in source.corruptions:
        raise unknown_name("corruption of the data set", corruption, source.corruptions)
    if severity not in SEVERITIES:
        raise ValueError(f"severity is {severity}; it is a whole number from 1 to {SEVERITIES[-1]}")

    def corrupted(x: Tensor, generator: torch.Generator, places: Tensor) -> Tensor:
        if data is None:
            raise ValueError("corrupting normalised inputs takes the loaded data set: give data")
        images = data.pixels(x)
        return data.normalise(
            corrupt(images, corruption, severity, source.corruptions, places, generator.initial_seed())
        )

    return CorruptedSGD(model, corruption=corrupted, fraction=fraction, seed=seed, random=random)
