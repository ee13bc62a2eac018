"""Attacks on models whose worst case is known in closed form, and what an evaluation makes of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.cell import Evaluation
from benchmarks.config import load
from benchmarks.data.dataset import DataSet, Images
from benchmarks.errors import UserError
from benchmarks.evaluation.attacks import AUTOATTACK, attacks, fgsm, pgd
from benchmarks.evaluation.evaluate import EvaluationImages, evaluate
from benchmarks.training.trainer import Trainer

EPSILON = 2 / 224


def linear(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """Two classes that a hyperplane divides: the worst perturbation is -epsilon sign(w_y - w_other)."""
    return lambda pixels: pixels.flatten(1) @ weight.T


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), epsilon=st.floats(0.0, 0.5))
def test_attacks_on_a_linear_model_are_its_worst_case(seed: int, epsilon: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.rand(4, 3, 5, 5, generator=draw)
    weight, labels = 0.2 * torch.randn(2, 75, generator=draw), torch.tensor([0, 1, 1, 0])
    worst = (pixels - epsilon * (weight[labels] - weight[1 - labels]).sign().view_as(pixels)).clamp(0, 1)
    assert torch.allclose(fgsm(linear(weight), pixels, labels, epsilon=epsilon), worst, atol=1e-6)
    found = pgd(linear(weight), pixels, labels, seed, epsilon=epsilon, steps=10, step_size=epsilon / 4)
    assert torch.allclose(found, worst, atol=1e-6)


def test_pixels_stay_valid_and_within_epsilon() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 4)
    )
    pixels, labels = torch.rand(6, 1, 8, 8).round(decimals=1), torch.arange(6) % 4
    for attacked in (
        fgsm(model, pixels, labels, epsilon=0.1),
        pgd(model, pixels, labels, 0, epsilon=0.1, steps=5, step_size=0.05),
    ):
        assert float(attacked.min()) >= 0 and float(attacked.max()) <= 1
        assert float((attacked - pixels).abs().max()) <= 0.1 + 1e-6
        assert not attacked.requires_grad
        clean, harmed = (F.cross_entropy(model(x), labels) for x in (pixels, attacked))
        assert harmed > clean
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_start_of_pgd_is_seeded() -> None:
    weight, pixels, labels = torch.zeros(2, 4), torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 1])

    def start(seed: int) -> Tensor:  # a model without gradients never leaves it
        return pgd(linear(weight), pixels, labels, seed, epsilon=0.2, steps=3, step_size=0.1)

    assert torch.equal(start(1), start(1)) and not torch.equal(start(1), start(2))
    assert float((start(1) - pixels).abs().max()) > 0.1


def trained(method: str) -> Trainer:
    """A cell on 200 digits, trained for an epoch."""
    cell = load(["recipe.epochs=1", f"method={method}"])[0]
    source = cell.dataset.build()
    whole = source.load(Path())
    small = Images(whole.train.images[:200], whole.train.labels[:200])
    trainer = Trainer(cell, source, DataSet(small, small, whole.mean, whole.std), "cpu")
    trainer.run()
    return trainer


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return trained("sgd")


def measured(trainer: Trainer, *overrides: str) -> dict[str, Any]:
    cell = load(["evaluation.corruptions=false", *overrides])[0]
    sets = EvaluationImages.make(cell.dataset.build(), trainer.data, corruptions=False)
    return evaluate(cell, trainer.method, trainer.data, sets)


def test_attacks_are_measured_and_leave_the_rest_as_it_is(trainer: Trainer) -> None:
    before = [value.clone() for value in trainer.model.state_dict().values()]
    plain = measured(trainer)
    attacked = measured(
        trainer, "evaluation=attacks", "evaluation.pgd_steps=4", "evaluation.corruptions=false"
    )
    assert "attacks" not in plain["plain"]
    found = attacked["plain"].pop("attacks")
    assert attacked == plain
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.state_dict().values(), strict=True))
    assert set(found) == {"fgsm", "pgd"} and found["fgsm"]["n"] == 200
    assert found["pgd"]["epsilon"] == found["fgsm"]["epsilon"] == EPSILON
    assert (found["pgd"]["steps"], found["pgd"]["step_size"]) == (4, 2.5 * EPSILON / 4)
    assert plain["plain"]["clean"]["nll"] < found["fgsm"]["nll"] < found["pgd"]["nll"] + 1e-3
    json.dumps(found)


def test_epsilon_zero_is_the_clean_measurement_and_more_does_more_harm() -> None:
    trainer = trained("was")
    results = [measured(trainer, f"evaluation.fgsm_epsilon={e}") for e in (0.0, 0.05, 0.2)]
    for mode in ("plain", "shadow"):
        losses = [result[mode]["attacks"]["fgsm"]["nll"] for result in results]
        assert losses == sorted(losses)
    clean = results[0]["plain"]
    assert clean["attacks"]["fgsm"] == {**clean["clean"], "epsilon": 0.0}


def test_the_normalised_image_is_that_of_the_clipped_pixels(trainer: Trainer) -> None:
    """FGSM by hand, with gradients by the normalised inputs."""
    data, model = trainer.data, trainer.model.eval()
    x = data.normalise(data.test.images).requires_grad_()
    sign = torch.autograd.grad(F.cross_entropy(model(x), data.test.labels, reduction="sum"), x)[0].sign()
    moved = (data.test.images.float() / 255 + 0.1 * sign).clamp(0, 1)
    wrong = model((moved - data.mean[0]) / data.std[0]).argmax(1) != data.test.labels
    found = measured(trainer, "evaluation.fgsm_epsilon=0.1")["plain"]["attacks"]["fgsm"]
    assert found["error"] == pytest.approx(100 * float(wrong.double().mean()))


def test_autoattack_needs_its_package(weightaug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, AUTOATTACK, None)  # as if it were not installed
    done = weightaug("run", "evaluation.autoattack_epsilon=0.03", "wandb=disabled")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and f"pip install {AUTOATTACK}" in done.stderr


def test_autoattack_is_called_as_its_authors_say(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of that name with the interface of pyautoattack 0.2, which does what FGSM does."""

    class AutoAttack:
        def __init__(self, model: Any, *, device: Any, eps: float, norm: str, seed: int) -> None:
            self.model, self.eps = model, eps
            assert norm == "Linf" and seed >= 0

        def run_standard_evaluation(
            self, x: Tensor, y: Tensor, /, *, batch_size: int
        ) -> tuple[Tensor, Tensor]:
            return fgsm(self.model, x, y, epsilon=self.eps), y

    package = ModuleType(AUTOATTACK)
    package.AutoAttack = AutoAttack  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, AUTOATTACK, package)
    package.__spec__ = ModuleSpec(AUTOATTACK, None)
    settings = ["evaluation.autoattack_epsilon=0.1", "evaluation.fgsm_epsilon=0.1"]
    found = measured(trainer, *settings)["plain"]["attacks"]
    assert found["autoattack"] == found["fgsm"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"fgsm_epsilon": -0.1}, "fgsm_epsilon=-0.1: must be from 0 to 1"),
        ({"pgd_epsilon": 8.0}, "pgd_epsilon=8.0: must be from 0 to 1"),
        ({"pgd_step_size": -1.0}, "pgd_step_size=-1.0"),
        ({"pgd_steps": 0}, "pgd_steps must be at least 1"),
        ({"autoattack_epsilon": -1.0}, "autoattack_epsilon"),
    ],
)
def test_bad_settings(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Evaluation(**setting).check()


def test_settings_enter_the_id_only_when_they_are_set() -> None:
    assert load([])[0].identity()["evaluation"] == {}
    chosen = load(["evaluation=attacks"])[0].identity()["evaluation"]
    assert chosen == {"fgsm_epsilon": EPSILON, "pgd_epsilon": EPSILON}
    assert attacks(Evaluation()) == {}
