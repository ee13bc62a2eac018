"""Fixed stratified splits: which images are held out is a function of the labels alone."""

from __future__ import annotations

import torch
from torch import Tensor

from weightaug.random import derive_seed

VALIDATION_SHARE = 0.1


def stratified(labels: Tensor, share: float, purpose: str) -> tuple[Tensor, Tensor]:
    """(kept, held out) positions, each in ascending order, with ``share`` of every class held out.

    The same for equal (labels, share, purpose) wherever it is computed: no seed of a run enters. Of a class with two
    images or more at least one is held out and at least one is kept; a single image is kept.
    """
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        generator = torch.Generator().manual_seed(derive_seed("split", purpose, label))
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        held[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()
