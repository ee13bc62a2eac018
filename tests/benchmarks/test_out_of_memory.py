"""Out of memory: evaluation goes on in parts with the same numbers, training ends with a setting that fits."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from interrupted_runs import small_trainer
from torch import Tensor

from benchmarks.data.corruptions import corrupt
from benchmarks.errors import UserError
from benchmarks.evaluation.attacks import AUTOATTACK
from benchmarks.evaluation.evaluate import EvaluationImages, evaluate
from benchmarks.evaluation.in_parts import InParts
from benchmarks.launch.training import train
from benchmarks.memory import is_out_of_memory
from benchmarks.training.trainer import Trainer

ATTACK = ["evaluation.pgd_epsilon=0.05", "evaluation.pgd_steps=2"]


def measured(trainer: Trainer, largest: int, **evaluation: Any) -> tuple[dict[str, Any], int]:
    """What ``trainer``'s model gives on a device that has room for so many images at once, and the parts' size."""
    cell = replace(trainer.cell, evaluation=replace(trainer.cell.evaluation, **evaluation))
    state = trainer.method.state_dict()

    def forward(module: object, inputs: tuple[Tensor]) -> None:
        x = inputs[0]
        if len(x) > largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB\nsecond line")

    handle = trainer.model.register_forward_pre_hook(forward)
    parts = InParts(trainer.method, cell.evaluation.batch_size, cell.evaluation.batch_norm != "batch")
    sets = EvaluationImages.make(trainer.source, trainer.data)
    try:
        return evaluate(cell, parts, trainer.data, sets), parts.size
    finally:
        handle.remove()
        trainer.method.load_state_dict(state)


def numbers(metrics: Any) -> list[float]:
    if isinstance(metrics, dict):
        return [number for _, part in sorted(metrics.items()) for number in numbers(part)]
    return (
        [number for part in metrics for number in numbers(part)] if isinstance(metrics, list) else [metrics]
    )


@pytest.mark.parametrize("method", ["sgd", "was"])
def test_evaluation_goes_on_in_parts_with_the_same_numbers(
    method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shadow weights are drawn for a batch, not for a part of it; attacks follow the same gradients."""
    trainer = small_trainer(f"method={method}", "recipe.epochs=1", *ATTACK)
    trainer.run()
    whole, size = measured(trainer, 64)
    assert (size, capsys.readouterr().err) == (512, "")
    parts, size = measured(trainer, 20)
    assert size == 16
    assert numbers(parts) == pytest.approx(numbers(whole), rel=1e-4, abs=1e-6)
    warnings = capsys.readouterr().err.splitlines()
    assert [line.split("goes on with ")[1] for line in warnings] == ["32 images at once", "16 images at once"]


def test_the_graph_of_a_batch_in_parts_takes_the_memory_of_one_part() -> None:
    """Each part's forward pass is run again when its gradient is asked for."""
    trainer = small_trainer()
    trainer.model.eval()
    sizes: list[int] = []
    trainer.model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    x = trainer.data.normalise(trainer.data.test.images)
    gradients = []
    for size in (64, 24):
        parts = InParts(trainer.method, size)
        pixels = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(parts.logits(pixels).logsumexp(1).sum(), pixels)
        gradients.append(gradient)
    assert sorted(sizes) == [16, 16, 24, 24, 24, 24, 64]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_re_estimated_statistics_come_from_whole_batches() -> None:
    trainer = small_trainer("recipe.epochs=1", "recipe.batch_size=64")
    results = [
        measured(trainer, 64, batch_norm="reestimated", batch_size=size)[0]["plain"]["clean"]["nll"]
        for size in (64, 16)
    ]
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_what_can_not_be_divided_is_an_error_that_names_the_setting() -> None:
    trainer = small_trainer("recipe.epochs=1")
    with pytest.raises(UserError, match=r"evaluation\.batch_norm=batch .* lower evaluation\.batch_size"):
        measured(trainer, 20, batch_norm="batch")
    with pytest.raises(UserError, match=r"a single image; use device=cpu"):
        measured(trainer, 0)


def test_corrupted_images_are_made_in_parts_with_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = small_trainer()
    whole = EvaluationImages.make(trainer.source, trainer.data)
    test, places, largest = trainer.data.test, torch.arange(64), 20

    def limited(images: Tensor, *arguments: Any) -> Tensor:
        if len(images) > largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return corrupt(images, *arguments)

    expected = [made(test.images, places) for made in whole.corrupted.values()]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("benchmarks.evaluation.evaluate.corrupt", limited)
    parts = EvaluationImages.make(trainer.source, trainer.data)
    found = [made(test.images, places) for made in parts.corrupted.values()]
    assert len(found) == 5 and all(map(torch.equal, found, expected))
    warnings = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[-1] for line in warnings] == [
        "32 are made at once from here on",
        "16 are made at once from here on",
    ]
    largest = 0
    with pytest.raises(UserError, match="making the corruption of a single image; use device=cpu"):
        EvaluationImages.make(trainer.source, trainer.data)


def test_batches_of_re_estimated_statistics_are_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = small_trainer("recipe.epochs=1", "recipe.batch_size=64")
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(
        UserError, match=r"re-estimating BatchNorm on 64 images .* device=cpu, for the same cell"
    ):
        measured(trainer, 20, batch_norm="reestimated", batch_size=16)
    assert all(torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())


@pytest.mark.parametrize("method", ["sgd", "was"])
def test_autoattack_goes_on_in_parts(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the package's ways of calling the model: without gradients, with those of all logits, on a part of the
    images that are not fooled yet."""

    class AutoAttack:
        def __init__(self, model: Any, *, device: Any, eps: float, norm: str, seed: int) -> None:
            self.model, self.eps = model, eps

        def run_standard_evaluation(
            self, x: Tensor, y: Tensor, /, *, batch_size: int
        ) -> tuple[Tensor, Tensor]:
            attacked = x.clone()
            for step in range(1, 4):
                with torch.no_grad():
                    robust = self.model(attacked).argmax(1) == y
                if not robust.any():
                    break
                pixels = attacked[robust].requires_grad_()
                logits = self.model(pixels)
                margin = logits.gather(1, y[robust, None]).squeeze(1) - logits.logsumexp(1)
                (gradient,) = torch.autograd.grad(margin.sum(), pixels)
                moved = (pixels.detach() - step / 3 * self.eps * gradient.sign()).clamp(0, 1)
                attacked[robust] = moved.maximum(x[robust] - self.eps).minimum(x[robust] + self.eps)
            return attacked, y

    package = ModuleType(AUTOATTACK)
    package.AutoAttack = AutoAttack  # type: ignore[attr-defined]
    package.__spec__ = ModuleSpec(AUTOATTACK, None)
    monkeypatch.setitem(sys.modules, AUTOATTACK, package)
    trainer = small_trainer(f"method={method}", "recipe.epochs=1", "evaluation.autoattack_epsilon=0.1")
    trainer.run()
    whole, size = measured(trainer, 64)
    assert size == 512
    parts, size = measured(trainer, 20)
    assert size == 16
    for mode, found in parts.items():
        attacked = found["attacks"]["autoattack"]
        assert numbers(attacked) == pytest.approx(numbers(whole[mode]["attacks"]["autoattack"]), rel=1e-4)
        assert attacked["nll"] > found["clean"]["nll"]


def test_other_errors_of_the_evaluation_are_no_lack_of_memory() -> None:
    trainer = small_trainer()

    def fails(*_: object) -> None:
        raise RuntimeError("shapes differ")

    trainer.model.register_forward_pre_hook(fails)
    with pytest.raises(RuntimeError, match="shapes differ"):
        InParts(trainer.method, 8).predict(torch.zeros(4, 1, 8, 8))


@pytest.mark.parametrize(
    ("largest", "said"), [(9, r"recipe\.batch_size=8 fits, "), (0, "another cell: recipe.pre")]
)
def test_training_out_of_memory_names_a_batch_that_was_tried(
    largest: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = small_trainer("recipe.batch_size=64")
    step = Trainer.step

    def limited(self: Trainer, x: Tensor, y: Tensor) -> Tensor:
        if len(x) > largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB\nsecond line")
        return step(self, x, y)

    monkeypatch.setattr(Trainer, "step", limited)
    with pytest.raises(UserError, match=said) as raised:
        train(trainer, tmp_path, 60.0, lambda entry: None)
    assert "out of memory in training (CUDA out of memory. Tried to allocate 1 GiB); " in str(raised.value)
    assert "recipe.precision=bf16 takes less" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_counts_as_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60)
    assert is_out_of_memory(raised.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))
