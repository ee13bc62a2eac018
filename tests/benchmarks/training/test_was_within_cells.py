"""WAS within SAM and DAMP from the command line's settings: rows of a table like any other method."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.config import load
from benchmarks.data.batches import epoch_batches
from benchmarks.errors import UserError
from benchmarks.evaluation.evaluate import EvaluationImages, evaluate
from benchmarks.training.trainer import Trainer

SMOKE = ["model=resnet_tiny", "recipe=resnet_smoke", "recipe.epochs=1", "evaluation.corruptions=false"]


def trainer(method: str, *more: str) -> Trainer:
    cell = load([f"method={method}", *SMOKE, *more])[0]
    source = cell.dataset.build()
    return Trainer(cell, source, source.load(Path()), "cpu")


def after_steps(run: Trainer, count: int) -> list[Tensor]:
    """The losses and the trained model."""
    run.model.train()
    batches = epoch_batches(run.data, run.cell.recipe, 0, 0)
    losses = [run.step(x, y) for _, (x, y) in zip(range(count), batches, strict=False)]
    return [*losses, *run.model.state_dict().values()]


@pytest.mark.parametrize("within", ["sam", "damp"])
def test_identity_is_the_method_alone(within: str) -> None:
    combined = trainer(f"was_{within}", "method.transform=identity", "method.coefficient=none")
    pairs = zip(after_steps(combined, 2), after_steps(trainer(within), 2), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("within", ["sam", "damp"])
def test_a_cell_trains_resumes_and_is_evaluated_in_both_modes(within: str, tmp_path: Path) -> None:
    whole = trainer(f"was_{within}", "recipe.epochs=2", "evaluation.batch_norm=reestimated")
    whole.run()
    first = trainer(f"was_{within}", "recipe.epochs=2", "evaluation.batch_norm=reestimated")
    first._epoch(lambda count: None, None)
    first.save(tmp_path / "checkpoint")
    other = trainer(f"was_{within}", "recipe.epochs=2", "evaluation.batch_norm=reestimated")
    other.run(tmp_path / "checkpoint")
    assert other.progress.resumed == 1
    for a, b in zip(whole.model.state_dict().values(), other.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    [k], [same] = whole.method.parameters(), other.method.parameters()
    assert torch.equal(k, same)
    images = EvaluationImages.make(whole.source, whole.data, corruptions=False)
    errors = evaluate(whole.cell, whole.method, whole.data, images)
    assert errors["plain"]["clean"]["error"] < 50  # 90 is chance
    assert errors["shadow"]["clean"]["error"] < 50


def test_hyper_parameters_are_checked() -> None:
    assert load(["method=was_sam", "method.rho=0.1", "method.transform=shift"])[0].method.changed == {
        "rho": 0.1, "running_variance": "biased", "transform": "shift",
    }  # fmt: skip
    with pytest.raises(UserError, match="sigma"):
        load(["method=was_damp", "method.sigmas=0.1"])
    with pytest.raises(UserError, match=r"rho=-1\.0 is no radius: use 0 or more"):
        trainer("was_sam", "method.rho=-1.0")
