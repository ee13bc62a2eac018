"""Workers: which cell is tried by whom, and how often."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cell import Cell
from benchmarks.config import load
from benchmarks.errors import PassingError, UserError
from benchmarks.launch import devices, workers
from benchmarks.launch.candidates import Came, Candidates
from benchmarks.results.lease import LeaseLostError
from benchmarks.results.store import Store
from benchmarks.runtime import Runtime
from benchmarks.simulation.table import card


def tried(folder: Path, cell: Cell) -> Came:
    store = Store(folder, retries=2)
    return workers._try(cell, Runtime(store=str(folder)), "cpu", store, "table", "command")


@pytest.mark.parametrize(
    ("error", "tries", "said"),
    [
        (RuntimeError("no luck\nmore"), 3, "RuntimeError: no luck"),
        (PassingError("out of memory"), 3, "out of memory"),
        (UserError("a wrong setting"), 1, "a wrong setting"),
    ],
)
def test_a_failing_cell_is_tried_as_often_as_it_makes_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int, said: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(devices, "run_on_devices", fail)
    cell = load([])[0]
    came = [tried(tmp_path, cell) for _ in range(tries)]
    assert came == [Came.FAILED] * (tries - 1) + [Came.SETTLED]
    assert Store(tmp_path).failures.given_up(cell.id) == said
    assert len(Store(tmp_path).failures.of(cell.id)["attempts"]) == tries
    monkeypatch.undo()
    assert tried(tmp_path, cell) is Came.SETTLED  # and not run


def test_a_lost_lease_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise LeaseLostError("gone")

    monkeypatch.setattr(devices, "run_on_devices", fail)
    cell = load([])[0]
    with pytest.raises(LeaseLostError):
        tried(tmp_path, cell)
    assert Store(tmp_path).failures.of(cell.id) == {}


def test_candidates_are_all_cells_once_and_the_busy_ones_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ids = [f"{number:016x}" for number in range(30)]
    store.write(card(ids[3]))
    store.failures.add(ids[4], "given up")
    candidates = Candidates(ids, store, random.Random(0))
    seen: list[str] = []
    while len(seen) < 28:
        cell_id = candidates.next()
        assert cell_id is not None
        seen.append(cell_id)
        busy = cell_id == ids[7]
        candidates.tell(cell_id, Came.BUSY if busy else Came.SETTLED)
    assert sorted(seen) == sorted({*ids} - {ids[3], ids[4]})
    places = [ids.index(cell_id) for cell_id in seen]
    assert sum(after < before for before, after in pairwise(places)) <= 1  # once around
    assert candidates.next() == ids[7]
    candidates.tell(ids[7], Came.BUSY)
    pauses = []
    for _ in range(20):
        assert candidates.next() is None or candidates.tell(ids[7], Came.BUSY) is None
        pauses.append(candidates.pause())
    assert pauses[0] < 1 < max(pauses) < 25
    store.write(card(ids[7]))
    while candidates:
        candidates.next()
