"""Cards of genuine cells with made-up numbers, to test what a comparison makes of them. Nothing was measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.config import load
from benchmarks.results.card import COSTS, SCHEMA
from benchmarks.results.files import write_json

IMAGES = 540


def made_card(overrides: Sequence[str], error: float | None, **changes: Any) -> dict[str, Any]:
    """The card of a cell with this clean error in %; None: it diverged. The other numbers follow from the error."""
    cell = load(["recipe.epochs=3", *overrides])[0]
    metrics = None if error is None else {"plain": {"clean": measured(error), "corrupted": {}}}
    return {
        "schema": SCHEMA,
        "id": cell.id,
        "status": "diverged" if error is None else "finished",
        "cell": json.loads(json.dumps(cell.as_dict())),
        "metrics": metrics,
        "diverged_at": {"epoch": 2, "step": 30} if error is None else None,
        "curve": [{"epoch": e, "step": 22 * e, "lr": 0.1, "loss": 2.0 / e} for e in (1, 2, 3)],
        "cost": {
            **dict.fromkeys(COSTS, 1),
            "flops": 2_000_000,
            "seconds_per_epoch": 2.0,
            "training_seconds": 6.0,
        },
        "provenance": {
            "device": "cpu",
            "hardware": {"processor": "made-up", "cores": 2},
            "command": "weightaug reproduce made/up --scale smoke",
        },
        **changes,
    }


def measured(error: float) -> dict[str, float]:
    return {"n": IMAGES, "error": error, "top3_error": error / 4, "nll": error / 30, "ece": error / 500}


def put(folder: Path, *cards: dict[str, Any]) -> str:
    """Write the cards into a store in ``folder``; returns the folder's name for the command line."""
    for card in cards:
        write_json(folder / "cards" / f"{card['id']}.json", card)
    return str(folder)


def seeds(method: str, errors: Sequence[float | None], first: int = 0) -> list[dict[str, Any]]:
    """Cards of one method, a seed for each error."""
    return [
        made_card([f"method={method}", f"seed={seed}"], error) for seed, error in enumerate(errors, first)
    ]
