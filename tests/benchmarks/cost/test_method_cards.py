"""The committed method cards are what the script gives, for every registered method."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from benchmarks.cost.method_cards import FACTS, FOLDER, card
from benchmarks.registry import OWN_FOLDER
from benchmarks.typed import read_yaml

METHODS = sorted(path.stem for path in (OWN_FOLDER / "method").glob("*.yaml"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_method_has_facts_and_a_card() -> None:
    assert sorted(read_yaml(FACTS)) == METHODS
    assert sorted(path.stem for path in FOLDER.glob("*.md")) == METHODS


@pytest.mark.parametrize("name", METHODS)
def test_cards_are_up_to_date(name: str) -> None:
    made = card(name)
    committed = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert committed == made, "run `python -m benchmarks.cost.method_cards`"
    assert len(made.splitlines()) < 80  # a page
