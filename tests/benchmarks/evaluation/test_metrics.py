"""Metrics against the authors' calibration errors and against plain counting."""

from __future__ import annotations

import math

import pytest
import torch
from golden_files import load_golden
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from benchmarks.errors import UserError
from benchmarks.evaluation.metrics import calibration_error, measure


def cases() -> list[str]:
    arrays, info = load_golden("ece")
    return [name for name in info["cases"] if f"{name}/probs" in arrays]


@pytest.mark.parametrize("name", cases())
def test_calibration_error(name: str) -> None:
    arrays, _ = load_golden("ece")
    probabilities = torch.from_numpy(arrays[f"{name}/probs"])
    labels, bins = torch.from_numpy(arrays[f"{name}/labels"]).long(), int(arrays[f"{name}/bins"])
    in_double = calibration_error(probabilities.double(), labels, bins)
    assert in_double == pytest.approx(float(arrays[f"{name}/ece_f64"]), rel=1e-9, abs=1e-15)
    # The float32 value sums in an order of its own: about 3e-8 between versions of the authors' libraries.
    in_single = calibration_error(probabilities.float(), labels, bins)
    assert in_single == pytest.approx(float(arrays[f"{name}/ece_f32_official"]), abs=1e-7)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000), count=st.integers(1, 60), classes=st.integers(2, 12), bins=st.integers(1, 20)
)
def test_measure_counts(seed: int, count: int, classes: int, bins: int) -> None:
    torch.manual_seed(seed)
    logits, labels = 3 * torch.randn(count, classes), torch.randint(0, classes, (count,))
    result = measure(logits, labels, bins)
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)
    assert result["n"] == count
    assert result["error"] == pytest.approx(100 * (ranks > 0).double().mean().item())
    assert result["top3_error"] == pytest.approx(100 * (ranks > 2).double().mean().item())
    assert result["nll"] == pytest.approx(F.cross_entropy(logits.double(), labels).item())
    confidence, prediction = logits.double().softmax(1).max(1)
    gap = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        gap += abs((confidence[inside] - (prediction[inside] == labels[inside]).double()).sum().item())
    assert result["ece"] == pytest.approx(gap / count, abs=1e-12)


def test_diverged_models_are_wrong_not_right() -> None:
    labels = torch.zeros(4, dtype=torch.long)
    logits = torch.tensor([[1.0, 0.0]] * 4)
    logits[0] = float("nan")
    logits[1, 0] = float("inf")
    result = measure(logits, labels)
    assert (result["error"], result["top3_error"]) == (50.0, 50.0)
    assert math.isnan(result["nll"])
    assert math.isnan(result["ece"])


def test_bad_shapes() -> None:
    with pytest.raises(UserError, match=r"got \[4, 3\] and \[5\]"):
        measure(torch.zeros(4, 3), torch.zeros(5, dtype=torch.long))
    with pytest.raises(UserError, match="metrics need"):
        measure(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
