"""The reduced schedules: every registered method on a tiny ResNet and a tiny ViT, on the embedded digits."""

from __future__ import annotations

from pathlib import Path

from benchmarks.config import load
from benchmarks.data.batches import epoch_batches
from benchmarks.data.dataset import DataSet
from benchmarks.evaluation.evaluate import EvaluationImages, evaluate
from benchmarks.training.trainer import Trainer

REFERENCE = Path(__file__).with_name("reference.json")
STEPS = 12
"""Losses that are compared one by one. More would compare rounding errors that training has amplified."""

METHODS = {
    "sgd": [],
    "dropout": [],
    "damp": [],
    "daap": [],
    "sam": [],
    "asam": ["method.rho=0.5"],
    "corrupted_sgd": [],
    "was": ["evaluation.batch_norm=reestimated"],
    "was_sam": ["evaluation.batch_norm=reestimated"],
    "was_damp": ["evaluation.batch_norm=reestimated"],
}
MODELS = {"resnet_tiny": "resnet_smoke", "vit_tiny": "vit_smoke"}
CASES = [f"{method}/{model}" for method in METHODS for model in MODELS]


def trainer(case: str, seed: int, *more: str) -> Trainer:
    """A three-epoch run of ``method/model`` in float32 on the CPU."""
    method, model = case.split("/")
    settings = [
        f"method={method}",
        f"model={model}",
        f"recipe={MODELS[model]}",
        f"seed={seed}",
        "recipe.epochs=3",
    ]
    cell = load([*settings, *METHODS[method], *more, "evaluation.corruptions=false"])[0]
    source = cell.dataset.build()
    return Trainer(cell, source, _digits(), "cpu")


def first_losses(case: str) -> list[float]:
    """The losses of the first ``STEPS`` steps with seed 0, under plain SGD.

    AdamW's first steps have the size of the learning rate even where a gradient is zero up to rounding, as those of
    attention's key biases are, so that its losses depend on the processor.
    """
    run = trainer(case, 0, "recipe.optimizer=sgd", "recipe.learning_rate=0.1", "recipe.decay=all")
    run.model.train()
    batches = epoch_batches(run.data, run.cell.recipe, run.cell.seed, 0)
    return [float(run.step(x, y)) for _, (x, y) in zip(range(STEPS), batches, strict=False)]


def final_errors(case: str, seed: int) -> dict[str, float]:
    """The clean test error in %, by inference mode, at the end of the run."""
    run = trainer(case, seed)
    run.run()
    images = EvaluationImages.make(run.cell.dataset.build(), run.data, corruptions=False)
    metrics = evaluate(run.cell, run.method, run.data, images)
    return {mode: measured["clean"]["error"] for mode, measured in metrics.items()}


def _digits() -> DataSet:
    return load(["dataset=digits"])[0].dataset.build().load(Path())
