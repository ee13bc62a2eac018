"""Whether training still gives the stored losses, and trained models that do not differ beyond noise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import cli
from benchmarks.registry import entries
from benchmarks.results.store import Store
from regression.runs import CARDS, CASES, METHODS, REFERENCE, cell, first_losses, train

STORED = json.loads(REFERENCE.read_text())
TOLERANCE = 1e-4
"""Relative. Another processor sums in another order; a changed method differs by far more. The references are of the
pinned torch: other versions draw other initial weights (2.11 for the ViT)."""


def test_every_registered_method_is_watched() -> None:
    assert set(METHODS) == set(entries("method"))


@pytest.mark.parametrize("case", CASES)
def test_losses(case: str) -> None:
    assert first_losses(case) == pytest.approx(STORED["losses"][case], rel=TOLERANCE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Every case with one seed, by the code as it is now."""
    store = Store(tmp_path_factory.mktemp("now"))
    for case in CASES:
        train(case, 0, store)
    return store


def test_trained_models(trained: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """As `weightaug compare tests/regression/cards STORE` says."""
    code = cli.main(["compare", str(CARDS), str(trained.folder)])
    said = capsys.readouterr().out
    assert code == 0, said
    assert all(f"{method} {model} digits 3 epochs" in said for method, model in map(_split, CASES))


@pytest.mark.parametrize("case", [f"{method}/resnet_tiny" for method in METHODS])
def test_a_method_that_learns_nothing_is_seen(case: str, trained: Store, tmp_path: Path) -> None:
    card = trained.read(cell(case, 0).id)
    assert card is not None
    for metrics in card["metrics"].values():
        metrics["clean"] |= {"error": 90.0, "nll": 2.303}
    Store(tmp_path).write(card)
    assert cli.main(["compare", str(CARDS), str(tmp_path)]) == 1


def _split(case: str) -> tuple[str, str]:
    method, model = case.split("/")
    return method, model
