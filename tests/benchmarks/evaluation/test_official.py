"""The WAS authors' test after every epoch: what it measures, and that it disturbs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.config import load
from benchmarks.data.dataset import DataSet, Images
from benchmarks.evaluation.evaluate import EvaluationImages, evaluate
from benchmarks.evaluation.official import official_errors
from benchmarks.training.trainer import Trainer

SMALL = [
    "recipe.epochs=3",
    "recipe.batch_size=32",
    "evaluation.corruptions=false",
    "evaluation.batch_norm=reestimated",
]
KEYS = ("official_plain_error", "official_shadow_error")


def trainer(*overrides: str) -> Trainer:
    """A WAS cell on the first 100 digits, with dropout before the last layer."""
    cell = load([*SMALL, "method=was", *overrides])[0]
    source = cell.dataset.build()
    whole = source.load(Path())
    small = Images(whole.train.images[:100], whole.train.labels[:100])
    run = Trainer(cell, source, DataSet(small, small, whole.mean, whole.std), "cpu")
    run.model.fc = nn.Sequential(nn.Dropout(0.5), run.model.fc)
    return run


def final(run: Trainer) -> list[torch.Tensor]:
    return [*run.model.state_dict().values(), *run.method.parameters()]


def test_training_and_the_other_measurements_are_as_without() -> None:
    results = []
    for setting in ("true", "false"):
        run = trainer(f"evaluation.official_was={setting}")
        run.run()
        sets = EvaluationImages.make(run.cell.dataset.build(), run.data, corruptions=False)
        results.append((final(run), evaluate(run.cell, run.method, run.data, sets), run.progress.curve))
    (with_it, metrics, curve), (without, other_metrics, other_curve) = results
    assert all(torch.equal(a, b) for a, b in zip(with_it, without, strict=True))
    assert metrics == other_metrics
    assert [{k: v for k, v in entry.items() if k not in KEYS} for entry in curve] == other_curve
    assert all(0 <= entry[key] <= 100 for entry in curve for key in KEYS)


def test_a_resumed_run_keeps_and_continues_the_curve(tmp_path: Path) -> None:
    whole, first, second = (trainer("evaluation.official_was=true") for _ in range(3))
    whole.run()

    def die(entry: dict[str, float]) -> None:
        first.save(tmp_path / "checkpoint.pt")
        if entry["epoch"] == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        first.run(after_epoch=die)
    second.run(tmp_path / "checkpoint.pt")
    assert second.progress.resumed == 1
    assert second.progress.curve == whole.progress.curve
    assert all(torch.equal(a, b) for a, b in zip(final(second), final(whole), strict=True))


def test_plain_error_is_that_of_training_mode() -> None:
    """Against the network in training mode on the same batches; the running statistics stay."""
    run = trainer()
    run.model.fc[0].p = 0.0
    run.run()
    before = [value.clone() for value in final(run)]
    modes = [module.training for module in run.model.modules()]
    whole = load([*SMALL, "recipe.batch_size=100"])[0]  # one batch: its order does not matter
    error = official_errors(whole, run.method, run.data, 1)["official_plain_error"]
    assert all(torch.equal(a, b) for a, b in zip(before, final(run), strict=True))
    assert [module.training for module in run.model.modules()] == modes
    run.model.train()
    wrong = run.model(run.data.normalise(run.data.test.images)).argmax(1) != run.data.test.labels
    assert error == pytest.approx(100 * float(wrong.float().mean()))


def test_dropout_is_on_and_everything_is_a_function_of_seed_and_epoch() -> None:
    run = trainer()
    run.run()
    first = official_errors(run.cell, run.method, run.data, 1)
    assert first == official_errors(run.cell, run.method, run.data, 1)
    dropped = [official_errors(run.cell, run.method, run.data, e)["official_plain_error"] for e in range(5)]
    assert len(set(dropped)) > 1
    run.model.fc[0].p = 1.0  # all features dropped: every image gets the same class
    everything = official_errors(run.cell, run.method, run.data, 1)
    counts = run.data.test.labels.bincount()
    assert everything["official_plain_error"] in [pytest.approx(100 - int(n)) for n in counts]


def test_ids_stay() -> None:
    plain, official = (load(["method=was", *more])[0] for more in ([], ["evaluation.official_was=true"]))
    assert "official_was" not in plain.identity()["evaluation"]
    assert official.id != plain.id
