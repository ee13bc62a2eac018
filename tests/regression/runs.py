"""The reduced schedules: every registered method on a tiny ResNet and a tiny ViT, on the embedded digits."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cell import Cell
from benchmarks.config import load
from benchmarks.data.batches import epoch_batches
from benchmarks.launch.run_cell import run_cell
from benchmarks.results.store import Store
from benchmarks.runtime import Runtime
from benchmarks.training.trainer import Trainer

REFERENCE = Path(__file__).with_name("reference.json")
CARDS = Path(__file__).with_name("cards")
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


def cell(case: str, seed: int, *more: str) -> Cell:
    """A three-epoch run of ``method/model`` in float32, measured on the clean test images."""
    method, model = case.split("/")
    settings = [f"method={method}", f"model={model}", f"recipe={MODELS[model]}", f"seed={seed}"]
    return load([*settings, "recipe.epochs=3", *METHODS[method], *more, "evaluation.corruptions=false"])[0]


def first_losses(case: str) -> list[float]:
    """The losses of the first ``STEPS`` steps with seed 0, under plain SGD.

    AdamW's first steps have the size of the learning rate even where a gradient is zero up to rounding, as those of
    attention's key biases are, so that its losses depend on the processor.
    """
    plain = cell(case, 0, "recipe.optimizer=sgd", "recipe.learning_rate=0.1", "recipe.decay=all")
    source = plain.dataset.build()
    run = Trainer(plain, source, source.load(Path()), "cpu")
    run.model.train()
    batches = epoch_batches(run.data, run.cell.recipe, run.cell.seed, 0)
    return [float(run.step(x, y)) for _, (x, y) in zip(range(STEPS), batches, strict=False)]


def train(case: str, seed: int, store: Store) -> None:
    """Put the card of the whole run into ``store``, unless it is there."""
    chosen = cell(case, seed)
    if store.has(chosen.id):
        return
    runtime = Runtime(device="cpu", wandb="disabled", weights="drop")
    with store.claim(chosen.id) as heartbeat:
        assert heartbeat is not None
        run_cell(chosen, runtime, "cpu", store, heartbeat, "regression", "python -m regression.measure")
