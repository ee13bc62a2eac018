"""Time of reading cards and of planning a table, by ``make bench``; the bars count no imports.

Cards have the size of those of a smoke table; a store of ten thousand others must not slow a plan down.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import config
from benchmarks.cell import Cell
from benchmarks.launch.plan import dry_run
from benchmarks.launch.request import Request
from benchmarks.registry import entries, lookup
from benchmarks.results.card import COSTS, MEASURED, SCHEMA
from benchmarks.results.store import Store
from benchmarks.tables.reading import load_table

PLAN_BAR = 1.0  # seconds
READ_BAR = 2.0  # seconds for a thousand cards
TYPES = ("brightness", "contrast", "gaussian_blur", "gaussian_noise", "impulse_noise", "shot_noise")
TABLES = [
    (name, scale)
    for name in entries("table")
    for scale in load_table(lookup("table", name).path, name).scales
]


def made_card(cell: Cell) -> dict[str, object]:
    """A card with the cell's config and made-up numbers, of many digits as measured ones are."""
    levels = {key: [1 / n for n in range(3, 8)] for key in MEASURED}
    clean = {"n": 540, **dict.fromkeys(MEASURED, 1 / 3)}
    curve = [{"epoch": e, "step": 19 * e, "lr": 0.1 / e, "loss": 2.3 / e} for e in range(1, 9)]
    return {
        "schema": SCHEMA,
        "id": cell.id,
        "status": "finished",
        "cell": cell.as_dict(),
        "metrics": {"plain": {"clean": clean, "corrupted": dict.fromkeys(TYPES, levels)}},
        "diverged_at": None,
        "curve": curve,
        "cost": {**dict.fromkeys(COSTS, 1.0), "uncounted_operators": {"aten::add": 5}},
        "provenance": {
            "device": "cpu",
            "hardware": {"processor": "made-up", "cores": 2},
            "command": "weightaug",
        },
    }


def store_of(folder: Path, count: int) -> tuple[Store, list[Cell]]:
    store, base = Store(folder), config.load(["method=damp"])[0]
    cells = [dataclasses.replace(base, seed=seed) for seed in range(count)]
    for cell in cells:
        text = json.dumps(made_card(cell), indent=1, sort_keys=True)
        (store.cards / f"{cell.id}.json").write_text(text + "\n")
    return store, cells


def test_reading(benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store, cells = store_of(tmp_path, 10_000)

    def read(count: int) -> float:
        begun = time.perf_counter()
        assert all(store.read(cell.id, cell) for cell in cells[:count])
        return time.perf_counter() - begun

    read(1000)
    thousand, all_of_them = min(read(1000) for _ in range(3)), read(10_000)
    benchmark.pedantic(lambda: read(1000), rounds=3)
    held = "held" if thousand <= READ_BAR else "missed"
    with capsys.disabled():
        print(f"\nreading and checking 1,000 cards: {thousand:.2f} s (bar {READ_BAR:g} s, {held})", end="")
        print(f"; 10,000 take {all_of_them / thousand:.1f} times that (linear: 10)", end="")


@pytest.mark.parametrize(("name", "scale"), TABLES)
def test_plan(
    benchmark: BenchmarkFixture,
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    scale: str,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "ten thousand others"
    if not folder.exists():
        store_of(folder, 10_000)

    def plan() -> None:
        config._composed.clear()  # as in a new process
        request = Request.parse(name, scale, None, [], [f"store={folder}", "device=cpu"], "reports")
        dry_run(request, every_cell=False)

    plan()  # imports what is needed
    benchmark.group = "planning a table"
    benchmark.pedantic(plan, rounds=3)
    seconds = benchmark.stats.stats.median if benchmark.stats else float("nan")
    with capsys.disabled():
        held = "held" if seconds <= PLAN_BAR else "missed"
        print(f"\n--dry-run of {name} at {scale}: {seconds:.2f} s (bar {PLAN_BAR:g} s, {held})", end="")
