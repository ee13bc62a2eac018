"""Several processes evaluate a model as one does: the numbers are the same, to the last digit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import ROOT, environment
from hypothesis import given
from hypothesis import strategies as st
from shared_evaluation import CELLS, EXAMPLES

from benchmarks.evaluation.own_batches import OwnBatches
from benchmarks.training.processes import Processes


@given(total=st.integers(1, 300), size=st.integers(1, 40), count=st.integers(1, 9))
def test_every_batch_has_one_process(total: int, size: int, count: int) -> None:
    every = [OwnBatches(Processes(rank, count), size) for rank in range(count)]
    assert [place for own in every for place in own.places(total).tolist()] == list(range(total))
    assert all(own.numbers(total).start * size in own.places(total) for own in every if own.numbers(total))
    assert max(len(own.numbers(total)) for own in every) <= -(-total // (size * count))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int], list[str]]:
    """What two processes have found, how they ended and what they said."""
    folder = tmp_path_factory.mktemp("pair")
    program = str(ROOT / "tests" / "shared_evaluation.py")
    variables = environment(f"{ROOT}:{ROOT / 'tests'}") | {"OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, program, str(folder), str(rank)],
            env=variables,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        said = [process.communicate(timeout=120)[1] for process in running]
        return folder, [process.returncode for process in running], said
    finally:
        for process in running:
            process.kill()


@pytest.mark.parametrize("name", CELLS)
def test_the_numbers_are_those_of_one_process(pair: tuple[Path, list[int], list[str]], name: str) -> None:
    first, second = (torch.load(pair[0] / f"{name}.{rank}.pt") for rank in (0, 1))
    assert first["alone"]["plain"]["clean"]["n"] == EXAMPLES
    assert first["together"] == second["together"] == first["alone"] == second["alone"]
    assert first["predictions"] == second["predictions"]
    assert first["predictions"][0] == first["predictions"][1]
    assert first["made"] + second["made"] == EXAMPLES  # corrupted images, of each severity
    if name == "was":
        assert first["alone"]["shadow"]["attacks"].keys() == {"fgsm", "pgd", "autoattack"}
        assert first["predictions"][0] > 7 * (6 + 2 + 3 + 2 + 1)


def test_a_process_that_fails_leaves_nobody_waiting(pair: tuple[Path, list[int], list[str]]) -> None:
    _, codes, said = pair
    assert codes == [1, 1]
    assert "no memory here" in said[1] and "no memory here" not in said[0]
