"""Small made-up cards with fixed numbers, to test what reports make of cards. Nothing was measured."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from typing import Any

from benchmarks.tables.table import Table

TYPES = {"gaussian_noise": 1.3, "defocus_blur": 1.0, "contrast": 0.6, "pixelate": 0.8}
IMAGES = 360
# method -> (clean error, growth of the error with severity, seconds per epoch)
METHODS = {
    "dropout": (6.0, 6.0, 0.50),
    "damp": (5.2, 4.2, 0.52),
    "sam": (4.6, 5.0, 1.01),
    "asam": (4.4, 4.6, 1.03),
    "sgd": (6.2, 6.4, 0.49),
    "was": (5.5, 5.6, 0.55),
}


def fake_cards(
    table: Table,
    scale: str,
    seeds: Iterable[int],
    diverged: Iterable[tuple[str, str, int]] = (),
    missing: Iterable[tuple[str, str, int]] = (),
) -> dict[tuple[str, str, int], Any]:
    """A card for every cell of ``table``, but for those (panel, method, seed) that are missing."""
    cards = {}
    for cell in table.cells(scale, seeds):
        method = table.row(cell.rows[0]).method or ""
        key = (cell.panel, method, cell.seed)
        long = any("epochs_factor" in override for override in cell.overrides)
        card = None if key in missing else fake_card(cell.panel, method, cell.seed, long, key in diverged)
        for row in cell.rows:
            cards[cell.panel, row, cell.seed] = card
    return cards


def fake_card(
    panel: str, method: str, seed: int, long: bool = False, diverged: bool = False
) -> dict[str, Any]:
    """One card; the same arguments give the same numbers."""
    name = f"{panel}-{method}-{'long' if long else 'short'}-{seed}"
    dice = random.Random(name)
    clean, growth, seconds = METHODS[method]
    clean = (clean * (0.85 if long else 1.0) + (1.0 if panel == "vit" else 0.0)) * dice.uniform(0.95, 1.05)
    seconds *= dice.uniform(0.97, 1.03)
    epochs = 8 if long else 4
    metrics = {"plain": _metrics(dice, clean, growth)}
    if method == "was":
        metrics["shadow"] = _metrics(dice, clean * 1.1, growth)
    return {
        "schema": 1,
        "id": hashlib.sha256(name.encode()).hexdigest()[:16],
        "status": "diverged" if diverged else "finished",
        "cell": {
            **{"method": method, "model": panel, "scale": "smoke", "seed": seed},
            "dataset": {"name": "digits", "corruptions": {name: [1, 2, 3, 4, 5] for name in TYPES}},
        },
        "metrics": None if diverged else metrics,
        "diverged_at": {"epoch": 2, "step": 31} if diverged else None,
        "curve": [
            {"epoch": e, "step": 20 * e, "lr": 0.1, "loss": round(2.3 / e, 4)}
            for e in range(1, (1 if diverged else epochs) + 1)
        ],
        "cost": {
            "parameters": 51_210 if panel == "vit" else 77_754,
            "macs": 900_000 if panel == "vit" else 1_200_000,
            "flops": 1_800_000 if panel == "vit" else 2_400_000,
            "uncounted_operators": {"aten::scaled_dot_product_attention": 4} if panel == "vit" else {},
            "seconds_per_epoch": round(seconds, 4),
            "training_seconds": round(seconds * epochs, 3),
            "evaluation_seconds": round(0.2 * dice.uniform(0.9, 1.1), 3),
            "peak_memory_bytes": int(dice.uniform(200, 210) * 2**20),
            "resumed": 0,
        },
        "provenance": {
            "commit": "0123456789abcdef",
            "dirty": False,
            "versions": {"python": "3.11.7", "torch": "2.11.0"},
            "hardware": {"processor": "made-up", "cores": 2, "memory_bytes": 8 * 2**30},
            "device": "cpu",
            "command": "weightaug reproduce damp/table2 --scale smoke",
            "started": f"2026-01-01T00:0{seed}:00+00:00",
            "finished": f"2026-01-01T00:0{seed}:30+00:00",
        },
    }


def _metrics(dice: random.Random, clean: float, growth: float) -> dict[str, Any]:
    corrupted = {}
    for name, weight in TYPES.items():
        errors = [clean + growth * weight * s * dice.uniform(0.94, 1.06) for s in range(1, 6)]
        corrupted[name] = _keys(errors)
    single = {key: values[0] for key, values in _keys([clean]).items()}
    return {"clean": {"n": IMAGES, **single}, "corrupted": corrupted}


def _keys(errors: list[float]) -> dict[str, list[float]]:
    return {
        "error": [round(e, 3) for e in errors],
        "top3_error": [round(e / 4, 3) for e in errors],
        "nll": [round(e / 25, 4) for e in errors],
        "ece": [round(e / 600, 5) for e in errors],
    }
