"""Workers: which cell is tried by whom, and how often."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.errors import PassingError, UserError
from benchmarks.launch.candidates import Came, Candidates
from benchmarks.launch.workers import Run, attempt, settle
from benchmarks.results.heartbeat import Heartbeat
from benchmarks.results.lease import LeaseLostError
from benchmarks.results.store import Store
from benchmarks.simulation.table import card

ID = "0123456789abcdef"


def failing(error: BaseException) -> Run:
    def run(cell_id: str, heartbeat: Heartbeat) -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "tries", "said"),
    [
        (RuntimeError("no luck\nmore"), 3, "RuntimeError: no luck"),
        (PassingError("out of memory"), 3, "out of memory"),
        (UserError("a wrong setting"), 1, "a wrong setting"),
    ],
)
def test_a_failing_cell_is_tried_as_often_as_it_makes_sense(
    tmp_path: Path, error: Exception, tries: int, said: str
) -> None:
    store = Store(tmp_path, retries=2)
    came = [attempt(ID, store, failing(error)) for _ in range(tries)]
    assert came == [Came.FAILED] * (tries - 1) + [Came.SETTLED]
    assert store.failures.given_up(ID) == said
    assert len(store.failures.of(ID)["attempts"]) == tries
    assert attempt(ID, store, failing(KeyboardInterrupt("was run"))) is Came.SETTLED


def test_a_lost_lease_is_no_failure(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(LeaseLostError):
        attempt(ID, store, failing(LeaseLostError("gone")))
    assert store.failures.of(ID) == {}


def test_a_worker_leaves_when_others_have_all_that_is_left(tmp_path: Path) -> None:
    store, other = Store(tmp_path), Store(tmp_path)
    with other.claim(ID) as heartbeat:
        assert heartbeat is not None
        settle(Candidates([ID], store), store, failing(KeyboardInterrupt("was run")), idle_seconds=0.1)
    assert not store.has(ID)


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
