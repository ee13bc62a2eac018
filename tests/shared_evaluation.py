"""A model that two processes evaluate, each of which is this program; for the tests. Imports little: they start soon.

``python shared_evaluation.py FOLDER RANK`` keeps in ``FOLDER``, for every cell, what the two find together and what
this one finds alone. In the end the second fails, and the first must not wait for it for ever.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.config import load
from benchmarks.data.dataset import DataSet, Images
from benchmarks.data.shifted import ShiftedImages
from benchmarks.errors import UserError
from benchmarks.evaluation import attacks
from benchmarks.evaluation import evaluate as module
from benchmarks.evaluation.attacks import Logits
from benchmarks.evaluation.evaluate import EvaluationImages, evaluate
from benchmarks.evaluation.in_parts import InParts
from benchmarks.evaluation.own_batches import OwnBatches
from benchmarks.training.processes import Processes, joined
from benchmarks.training.trainer import Trainer

EXAMPLES = 100  # six batches of 16 and one of 4: three for the first process, four for the second
SETTINGS = ["recipe.epochs=1", "recipe.batch_size=20", "evaluation.batch_size=16", 'model.blocks="1"']
SETTINGS += ["dataset.corruptions={gaussian_noise: [0.1, 0.2, 0.3, 0.4, 0.5]}"]
ATTACKS = ["evaluation.fgsm_epsilon=0.05", "evaluation.pgd_epsilon=0.05", "evaluation.pgd_steps=2"]
ATTACKS += ["evaluation.autoattack_epsilon=0.02"]
CELLS = {
    "was": ["method=was", *ATTACKS],
    "re_estimated": ["method=was", "evaluation.batch_norm=reestimated"],
    "separate": [
        "method=damp",
        "method.batch_norm=separate",
    ],  # where a process has BatchNorm's statistics of its own
    # One batch: nothing for the first process.
    "few": ["method=was", "evaluation.batch_norm=batch", "evaluation.batch_size=128"],
}


def adaptive(logits: Logits, pixels: Tensor, labels: Tensor, seed: int = 0, *, epsilon: float) -> Tensor:
    """In the place of AutoAttack: runs the model as often as the images ask for."""
    for _ in range(1 + int(labels[0]) % 3):
        pixels = attacks.fgsm(logits, pixels, labels, epsilon=epsilon)
    return pixels


def findings(overrides: list[str], processes: Processes) -> dict[str, Any]:
    """Of a model that the processes train, the metrics that they find together and those that this one does."""
    cell = load([*SETTINGS, *overrides])[0]
    source = cell.dataset.build()
    whole = source.load(Path())
    few = Images(whole.train.images[:EXAMPLES], whole.train.labels[:EXAMPLES])
    trainer = Trainer(cell, source, DataSet(few, few, whole.mean, whole.std), "cpu", processes=processes)
    trainer.run()
    state, method = trainer.method.state_dict(), InParts(trainer.method, cell.evaluation.batch_size)
    shifted = {"others": ShiftedImages(few, few.labels[:, None], None)}
    made: list[int] = []
    corrupt = module.corrupt

    def counted(images: Tensor, *arguments: Any) -> Tensor:
        made.append(len(images))
        return corrupt(images, *arguments)

    found: dict[str, Any] = {}
    with trainer.by_itself():
        module.corrupt = counted  # type: ignore[assignment]
        own = OwnBatches(processes, cell.evaluation.batch_size)
        sets = EvaluationImages.make(source, trainer.data, shifted=shifted, own=own)
        found["together"] = evaluate(cell, method, trainer.data, sets, processes)
        found["predictions"] = [trainer.method.predictions]
        found["made"] = sum(made) / len(made) if made else 0
        module.corrupt = corrupt
        trainer.method.load_state_dict(state)
        sets = replace(EvaluationImages.make(source, trainer.data), shifted=shifted)
        found["alone"] = evaluate(cell, method, trainer.data, sets)
        found["predictions"].append(trainer.method.predictions)
    return found


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    attacks.auto_attack, attacks.check_installed = adaptive, lambda evaluation: None
    with joined(rank, 2, f"file://{folder}/meeting") as processes:
        for name, overrides in CELLS.items():
            torch.save(findings(overrides, processes), folder / f"{name}.{rank}.pt")
        if rank == 1:
            raise UserError("no memory here")
        processes.gather(rank)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
