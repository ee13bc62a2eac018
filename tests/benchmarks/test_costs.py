"""The clocks and rates of a card, and late divergence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import CommandLine
from interrupted_runs import small_trainer

from benchmarks.cost import utilisation
from benchmarks.cost.utilisation import matmul_rate, training_flops
from benchmarks.reports.measures import check_metric, measure
from benchmarks.results.card import TIMED, DamagedCardError, check_card
from benchmarks.training.optimizers import set_learning_rate

COMMAND = ["run", "recipe.epochs=2", "device=cpu", "threads=1", "wandb=disabled", "weights=drop"]
COMMAND += ["dataset.corruptions={contrast: [0.4, 0.3, 0.2, 0.1, 0.05]}"]


def test_a_card_says_where_the_time_went(weightaug: CommandLine, tmp_path: Path) -> None:
    assert weightaug(*COMMAND).returncode == 0
    card = json.loads(next((tmp_path / "runs" / "cards").glob("*.json")).read_text())
    cost = card["cost"]
    assert cost.keys() >= set(TIMED)
    images = card["curve"][-1]["step"] * card["cell"]["recipe"]["batch_size"]
    assert cost["images_per_second"] == pytest.approx(images / cost["training_seconds"])
    assert cost["flops_per_second"] == pytest.approx(cost["training_flops"] * cost["images_per_second"])
    assert cost["utilisation"] == pytest.approx(cost["flops_per_second"] / cost["matmul_flops_per_second"])
    assert 0 < cost["utilisation"] < 1
    assert 2 < cost["training_flops"] / cost["flops"] <= 3  # the first layer's input needs no gradient
    assert cost["checkpoint_seconds"] > 0
    assert cost["preparation_seconds"] > 0
    assert cost["compile_seconds"] < 0.1  # the eager engine compiles nothing
    assert (cost["energy_joules"], cost["evaluation_batch_size"]) == (None, 512)
    assert cost["starvation"] == 0  # the images lie in memory
    for name in TIMED:
        check_metric(f"cost.{name}", "a table")
        assert measure(card, f"cost.{name}") == cost[name]
    assert check_card({**card, "cost": {k: v for k, v in cost.items() if k not in TIMED}})
    for bad in ("fast", True):
        with pytest.raises(DamagedCardError, match="images_per_second that is not a number"):
            check_card({**card, "cost": {**cost, "images_per_second": bad}})
    with pytest.raises(DamagedCardError, match=r"starvation of 1\.5, outside 0 to 1"):
        check_card({**card, "cost": {**cost, "starvation": 1.5}})


@pytest.mark.parametrize(("method", "passes"), [("damp", 1.0), ("sam", 2.0), ("was", 1.03)])
def test_the_flops_of_a_step_are_those_of_the_methods_passes(method: str, passes: float) -> None:
    sgd, other = small_trainer(), small_trainer(f"method={method}")
    # WAS transforms its kernels by matrix products, which show beside so small a network's.
    counted = [training_flops(run.cell, run.source, run.data, "cpu") for run in (other, sgd)]
    assert counted[0] / counted[1] == pytest.approx(passes, rel=0.01)
    again = training_flops(small_trainer(f"method={method}", "seed=7").cell, sgd.source, sgd.data, "cpu")
    assert again == counted[0]


def test_the_device_is_measured_once_and_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 1.1, 2.0, 2.05, 3.0, 3.2])  # begin; three products of 0.1, 0.05 and 0.2 s
    monkeypatch.setattr(utilisation.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(utilisation, "LONGEST_SECONDS", 3.1)
    monkeypatch.setattr(utilisation, "SIZES", {"cpu": 32})
    assert matmul_rate.__wrapped__("cpu", "bf16") == pytest.approx(2 * 32**3 / 0.05)


def test_logits_that_overflow_after_the_last_step_are_divergence(
    weightaug: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finite weights whose evaluation is not."""
    from benchmarks.training.trainer import Trainer

    finite = Trainer._finite

    def last(self: Trainer) -> bool:
        with torch.no_grad():
            self.model.fc.weight.fill_(3e38)
        return finite(self)

    monkeypatch.setattr(Trainer, "_finite", last)
    done = weightaug(*COMMAND, "seed=1", "recipe.epochs=1")
    assert done.returncode == 0
    assert "diverged in epoch 1" in done.stdout
    card = json.loads(next((tmp_path / "runs" / "cards").glob("*.json")).read_text())
    assert (card["status"], card["metrics"]) == ("diverged", None)
    assert card["diverged_at"] == {"epoch": 1, "step": card["curve"][-1]["step"]}


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_loss_that_is_no_number_ends_the_run_as_a_result(value: float) -> None:
    run = small_trainer("recipe.epochs=3")
    run.step = lambda x, y: torch.tensor(value)  # type: ignore[method-assign]
    progress = run.run()
    assert progress.diverged_at == {"epoch": 1, "step": 0}
    assert len(progress.curve) == 1
    json.dumps(progress.curve, allow_nan=False)


def test_coefficients_that_are_no_numbers_are_divergence() -> None:
    run = small_trainer("method=was", "recipe.epochs=1")

    def explode(*_: object) -> None:
        with torch.no_grad():
            run.method.parameters()[0].fill_(float("nan"))

    run.optimizer.register_step_post_hook(explode)
    set_learning_rate(run.optimizer, 0.0)
    assert run.run().diverged_at is not None
