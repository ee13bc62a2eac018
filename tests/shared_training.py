"""Cells trained by two processes, each of which is this program; for the tests. Imports little: processes start soon.

``python shared_training.py FOLDER RANK`` trains every cell of ``FOLDER/cells.json`` as one of two processes and keeps
what came of it in ``FOLDER``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from benchmarks.config import load
from benchmarks.data.dataset import DataSet, Images, Source
from benchmarks.training.processes import ALONE, Processes, joined
from benchmarks.training.trainer import Trainer

EXAMPLES = 61  # three batches of 16 and one of 13, which does not divide
SETTINGS = ["recipe.batch_size=16", "recipe.epochs=1", "recipe.drop_last=false", "recipe.learning_rate=0.05"]


def trainer(overrides: list[str], processes: Processes = ALONE, accumulate: int = 1) -> Trainer:
    """The trainer of a cell on a few digits."""
    cell = load([*SETTINGS, *overrides])[0]
    source: Source = cell.dataset.build()
    whole = source.load(Path())
    few = Images(whole.train.images[:EXAMPLES], whole.train.labels[:EXAMPLES])
    data = DataSet(few, few, whole.mean, whole.std)
    return Trainer(cell, source, data, "cpu", processes=processes, accumulate=accumulate)


def outcome(run: Trainer) -> dict[str, object]:
    """The loss of every step, the weights before the last step and after it."""
    losses: list[float] = []
    step = run.step

    def noted(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = step(x, y)
        losses.append(float(loss))
        return loss

    run.step = noted  # type: ignore[method-assign]
    run.run()
    values = {
        **run.model.state_dict(),
        **{f"K{i}": p.detach() for i, p in enumerate(run.method.parameters())},
    }
    return {"losses": losses, "weights": values, "curve": run.progress.curve}


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    cells = json.loads((folder / "cells.json").read_text())
    with joined("cpu", rank, 2, f"file://{folder}/meeting") as processes:
        for name, (overrides, accumulate) in cells.items():
            torch.save(outcome(trainer(overrides, processes, accumulate)), folder / f"{name}.{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
