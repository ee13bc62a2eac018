"""Made-up cards of a table's cells, as if they had been trained on this machine. Nothing was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.cell import Cell
from benchmarks.results.card import COSTS, MEASURED, SCHEMA
from benchmarks.results.files import write_json
from benchmarks.results.provenance import hardware


def card(cell: Cell, seconds: float = 2.0, **changes: Any) -> dict[str, Any]:
    """A made-up card of a cell, as if it had been trained on this machine."""
    epochs = cell.recipe.total_epochs
    clean = {"n": 540, **dict.fromkeys(MEASURED, 1.0)}
    cost = {"flops": 2_000_000, "seconds_per_epoch": seconds, "training_seconds": seconds * epochs}
    return {
        "schema": SCHEMA,
        "id": cell.id,
        "status": "finished",
        "cell": json.loads(json.dumps(cell.as_dict())),
        "metrics": {"plain": {"clean": clean, "corrupted": {}}, "shadow": {"clean": clean, "corrupted": {}}},
        "diverged_at": None,
        "curve": [{"epoch": e, "step": 19 * e, "lr": 0.1, "loss": 1.0} for e in range(1, epochs + 1)],
        "cost": {**dict.fromkeys(COSTS, 0), **cost, "evaluation_seconds": 1.0},
        "provenance": {"device": "cpu", "hardware": hardware("cpu"), "command": "weightaug", **changes},
    }


def put(made: dict[str, Any]) -> None:
    write_json(Path("runs/cards") / f"{made['id']}.json", made)
