"""DAMP against three steps of the authors' code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_files import golden_names
from golden_training import CASES, check_case, set_up
from torch import nn

from weightaug import DAMP, RandomSource


def make_damp(model: nn.Module, settings: dict[str, Any], random: RandomSource, **changes: Any) -> DAMP:
    options = {
        "sigma": settings["std"],
        "sub_batches": settings["M"],
        "batch_norm": "synchronised" if settings.get("sync_batch_norm", True) else "separate",
        "running_variance": "biased",
    }
    return DAMP(model, random=random, **{**options, **changes})


@pytest.mark.parametrize("case", golden_names(*(case for case in CASES if case.startswith("damp"))))
def test_damp_is_the_authors(case: str) -> None:
    check_case(case, make_damp)


@pytest.mark.parametrize("change", [{"chain_rule": True}, {"perturb": "kernels"}, {"batch_norm": "separate"}])
def test_other_readings_miss_the_vectors(change: dict[str, Any]) -> None:
    """Every option that deviates from the authors' changes the gradient by more than a tenth of its largest."""
    method, arrays, _ = set_up("damp_resnet_same_sync_m4", lambda *a: make_damp(*a, **change))
    x, y = torch.from_numpy(arrays["x"][0]), torch.from_numpy(arrays["y"][0])
    method.backward(F.cross_entropy, x.double(), y)
    pairs = [(p.grad.numpy(), arrays[f"grad1/{name}"]) for name, p in method.model.named_parameters()]
    scale = max(np.abs(expected).max() for _, expected in pairs)
    assert max(np.abs(actual - expected).max() for actual, expected in pairs) > 0.1 * scale
