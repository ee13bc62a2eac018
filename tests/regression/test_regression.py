"""Whether training still gives the stored losses, and errors within the measured noise floor."""

from __future__ import annotations

import json

import pytest

from benchmarks.registry import entries
from regression.runs import CASES, METHODS, REFERENCE, final_errors, first_losses

STORED = json.loads(REFERENCE.read_text())
TOLERANCE = 1e-4
"""Relative. Another processor sums in another order; a changed method differs by far more. The references are of the
pinned torch: other versions draw other initial weights (2.11 for the ViT)."""


def test_every_registered_method_is_watched() -> None:
    assert set(METHODS) == set(entries("method"))


@pytest.mark.parametrize("case", CASES)
def test_losses(case: str) -> None:
    assert first_losses(case) == pytest.approx(STORED["losses"][case], rel=TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_final_errors(case: str) -> None:
    for mode, error in final_errors(case, seed=0).items():
        stored = STORED["errors"][case][mode]
        assert stored["low"] <= error <= stored["high"], f"{mode}: seeds 0 to 9 gave {stored['seeds']}"
