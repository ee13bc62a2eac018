"""Small trained cells in a store, with their weights, for the tests; trained on a few digits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.config import load
from benchmarks.data.dataset import DataSet, Images, Source
from benchmarks.results.card import COSTS, MEASURED, SCHEMA
from benchmarks.results.provenance import provenance
from benchmarks.results.store import Store
from benchmarks.results.weights import save
from benchmarks.training.trainer import Trainer

INPUTS = {"classes": 10, "channels": 1, "size": 8, "mean": [0.3], "std": [0.4]}


def trained(store: Store, overrides: Sequence[str], data: DataSet | None = None) -> Trainer:
    """Train a cell for a step or two, on a few digits or on ``data``, and put it into ``store``."""
    cell = load(["recipe.epochs=1", "recipe.batch_size=32", *overrides])[0]
    source: Source = cell.dataset.build()
    if data is None:
        whole = source.load(Path())
        few = Images(whole.train.images[:64], whole.train.labels[:64])
        data = DataSet(few, few, whole.mean, whole.std)
    trainer = Trainer(cell, source, data, "cpu")
    trainer.run()
    path = store.weights(cell.id)
    _, channels, size, _ = data.test.images.shape
    inputs = {**INPUTS, "channels": channels, "size": size}
    entry = save(path, store.folder, cell, inputs, trainer.model, trainer.method.state_dict())
    clean = {"n": len(data.test), **dict.fromkeys(MEASURED, 1.0)}
    card: dict[str, Any] = {
        "schema": SCHEMA,
        "id": cell.id,
        "status": "finished",
        "cell": json.loads(json.dumps(cell.as_dict())),
        "metrics": {mode: {"clean": clean, "corrupted": {}} for mode in trainer.method.modes},
        "diverged_at": None,
        "curve": trainer.progress.curve,
        "cost": dict.fromkeys(COSTS, 1.0),
        "weights": entry,
        "provenance": provenance("cpu", 1, "weightaug run", "2026-01-01T00:00:00", "2026-01-01T00:00:01"),
    }
    store.write(card)
    return trainer
