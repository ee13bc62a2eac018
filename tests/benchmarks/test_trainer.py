"""One training run: exact resume for every method, divergence, evaluation protocols."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.config import load
from benchmarks.data.batches import epoch_batches
from benchmarks.data.dataset import DataSet, Images, Source
from benchmarks.evaluation.evaluate import EvaluationImages, evaluate
from benchmarks.registry import entries
from benchmarks.training import checkpoint
from benchmarks.training.optimizers import build_optimizer, clip_gradients
from benchmarks.training.trainer import Trainer

TABLES = "{contrast: [0.4, 0.3, 0.2, 0.1, 0.05], gaussian_noise: [0.08, 0.12, 0.18, 0.26, 0.38]}"
SMALL = [
    "recipe.epochs=3",
    "recipe.batch_size=32",
    f"dataset.corruptions={TABLES}",
]
METHODS = list(entries("method"))


def trainer(*overrides: str) -> Trainer:
    """A trainer of a small cell on the first 100 digits."""
    cell = load([*SMALL, *overrides])[0]
    source: Source = cell.dataset.build()
    whole = source.load(Path())
    small = Images(whole.train.images[:100], whole.train.labels[:100])
    return Trainer(cell, source, DataSet(small, small, whole.mean, whole.std), "cpu")


def weights(run: Trainer) -> list[torch.Tensor]:
    return [*run.model.state_dict().values(), *run.method.parameters()]


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_run_ends_as_the_uninterrupted_one(method: str, tmp_path: Path) -> None:
    """With AdamW and clipping, from checkpoints between epochs; see test_resume.py for SGD and all other moments."""
    overrides = [f"method={method}", "model=vit_tiny", "recipe=vit_smoke", *SMALL]
    whole = trainer(*overrides)
    whole.run()

    class KilledError(Exception):
        pass

    for death in (
        1,
        2,
    ):  # dies twice, each time after an epoch whose checkpoint is older by zero or more epochs
        run = trainer(*overrides)

        def die(entry: dict[str, float], run: Trainer = run, death: int = death) -> None:
            if entry["epoch"] == death:
                run.save(tmp_path / "checkpoint.pt")
            if entry["epoch"] == death + 1:
                raise KilledError

        with pytest.raises(KilledError):
            run.run(tmp_path / "checkpoint.pt", after_epoch=die)
    last = trainer(*overrides)
    last.run(tmp_path / "checkpoint.pt")
    assert last.progress.resumed == 2
    assert last.progress.curve == whole.progress.curve
    assert all(torch.equal(a, b) for a, b in zip(weights(last), weights(whole), strict=True))


def test_a_run_that_dies_within_an_epoch_continues_from_its_last_batch(tmp_path: Path) -> None:
    augmented = ["recipe.mixup_alpha=0.4", "recipe.randaugment=torchvision", "recipe.flip=true"]
    overrides = ["method=was", "recipe.epochs=2", "recipe.batch_size=16", *augmented]
    whole, first, second = (trainer(*overrides) for _ in range(3))
    whole.run()
    assert whole.steps == 6

    class KilledError(Exception):
        pass

    step, save = first.step, first.save
    first.save = lambda path: save(path) if first.progress.step == 9 else None  # type: ignore[method-assign]

    def die(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if first.progress.step == 9:  # in the second epoch
            raise KilledError
        return step(x, y)

    first.step = die  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        first.run(tmp_path / "checkpoint.pt", every=0)
    steps = []
    second.optimizer.register_step_post_hook(lambda *_: steps.append(second.progress.step))
    second.run(tmp_path / "checkpoint.pt")
    assert steps == list(range(9, 12))
    assert second.progress.resumed == 1
    assert second.progress.curve == whole.progress.curve
    assert all(torch.equal(a, b) for a, b in zip(weights(second), weights(whole), strict=True))
    assert second.progress.seconds["training"] > 0


def test_a_checkpoint_after_the_last_batch_of_an_epoch(tmp_path: Path) -> None:
    """The epoch is finished without training anything again."""
    whole, first, second = (trainer("recipe.epochs=1") for _ in range(3))
    whole.run()
    save = first.save

    def save_and_die(path: Path) -> None:
        if first.progress.batch == first.steps:
            save(path)
            raise InterruptedError

    first.save = save_and_die  # type: ignore[method-assign]
    with pytest.raises(InterruptedError):
        first.run(tmp_path / "checkpoint.pt", every=0)
    assert (first.progress.epoch, first.progress.batch) == (0, 3)
    second.run(tmp_path / "checkpoint.pt")
    assert second.progress.curve == whole.progress.curve
    assert all(torch.equal(a, b) for a, b in zip(weights(second), weights(whole), strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_on_mixed_labels(method: str) -> None:
    """As a closed form: with all labels alike the mixed labels are those labels, and so is the gradient."""
    mixed, plain = (trainer(f"method={method}", *more) for more in (["recipe.mixup_lambda=0.8"], []))
    x, y = next(epoch_batches(plain.data, plain.cell.recipe, 0, 0))
    same = torch.full_like(y, 3)
    soft = torch.nn.functional.one_hot(same, 10).float()
    losses = [float(mixed.step(x, soft)), float(plain.step(x, same))]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for a, b in zip(weights(mixed), weights(plain), strict=True):
        assert torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-5)
    assert all(bool(value.isfinite().all()) for value in weights(mixed))


def test_the_seed_moves_initialisation_order_and_method() -> None:
    first, second = trainer("seed=0"), trainer("seed=1")
    assert not torch.equal(first.model.conv1.weight, second.model.conv1.weight)
    assert torch.equal(first.model.conv1.weight, trainer("seed=0").model.conv1.weight)


def test_divergence_is_a_result() -> None:
    run = trainer("recipe.learning_rate=1e30", "recipe.epochs=4")
    progress = run.run()
    assert progress.diverged_at is not None
    assert progress.epoch < 4
    assert all(abs(entry["loss"]) < float("inf") for entry in progress.curve)


def test_a_last_step_into_infinity_is_divergence_too() -> None:
    run = trainer("recipe.epochs=1", "recipe.batch_size=100")

    def explode(*_: object) -> None:
        with torch.no_grad():
            run.model.fc.weight.fill_(float("inf"))

    run.optimizer.register_step_post_hook(explode)
    assert run.run().diverged_at == {"epoch": 1, "step": 1}


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 truncated"])
def test_a_damaged_checkpoint_is_set_aside_and_the_run_starts_anew(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    run = trainer("recipe.epochs=1")
    assert run.run(path).resumed == 0
    assert [kept.read_bytes() for kept in (tmp_path / "damaged").iterdir()] == [content]
    warning = capsys.readouterr().err
    assert "refused (it is damaged or no checkpoint: " in warning
    assert "starts anew" in warning


def test_a_checkpoint_that_lacks_something_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    run = trainer("recipe.epochs=2")
    checkpoint.save(path, run.cell, {"model": run.model.state_dict()})
    assert run.run(path).resumed == 0
    assert run.progress.epoch == 2
    assert len(list((tmp_path / "damaged").iterdir())) == 1


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "evil",))  # type: ignore[return-value]

    run = trainer()
    torch.save(
        {"version": checkpoint.VERSION, "cell": run.cell.id, "evil": Evil()}, tmp_path / "checkpoint.pt"
    )
    with pytest.raises(checkpoint.RefusedError):
        checkpoint.load(tmp_path / "checkpoint.pt", run.cell)
    assert not (tmp_path / "evil").exists()


def test_weight_decay_on_kernels_only() -> None:
    run = trainer("recipe.decay=kernels")
    groups = build_optimizer(run.cell.recipe, run.model, []).param_groups
    assert all(p.ndim >= 2 for p in groups[0]["params"])
    assert all(p.ndim < 2 for p in groups[1]["params"])
    assert (groups[0]["weight_decay"], groups[1]["weight_decay"]) == (5e-4, 0.0)


def test_the_methods_own_parameters_are_trained() -> None:
    run = trainer("method=was")
    before = [parameter.clone() for parameter in run.method.parameters()]
    run.run()
    assert any(not torch.equal(a, b) for a, b in zip(before, run.method.parameters(), strict=True))


@pytest.mark.parametrize("policy", ["running", "reestimated", "batch"])
def test_evaluation_leaves_the_model_as_it_was(policy: str) -> None:
    run = trainer("method=was", f"evaluation.batch_norm={policy}", "recipe.epochs=1")
    run.run()
    before = [value.clone() for value in run.model.state_dict().values()]
    source = run.cell.dataset.build()
    sets = EvaluationImages.make(source, run.data)
    metrics = evaluate(run.cell, run.method, run.data, sets)
    assert all(torch.equal(a, b) for a, b in zip(before, run.model.state_dict().values(), strict=True))
    assert set(metrics) == {"plain", "shadow"}
    assert metrics["plain"]["clean"]["n"] == 100
    assert len(metrics["plain"]["corrupted"]["contrast"]["error"]) == 5
    assert 0 <= metrics["plain"]["clean"]["top3_error"] <= metrics["plain"]["clean"]["error"] <= 100


def test_batch_norm_policies_differ() -> None:
    run = trainer("method=was", "recipe.epochs=1")
    run.run()
    sets = EvaluationImages.make(run.cell.dataset.build(), run.data)
    results = []
    for policy in ("running", "reestimated", "batch"):
        cell = load([*SMALL, "method=was", "recipe.epochs=1", f"evaluation.batch_norm={policy}"])[0]
        results.append(evaluate(cell, run.method, run.data, sets)["plain"]["clean"]["nll"])
    assert len(set(results)) == 3


def test_bf16_autocast_trains() -> None:
    run = trainer("recipe.precision=bf16", "recipe.epochs=2")
    assert run.run().diverged_at is None
    assert next(run.model.parameters()).dtype == torch.float32


def test_clipping_is_exact() -> None:
    long, short = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
    long.grad, short.grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    clip_gradients([long, short, torch.nn.Parameter(torch.zeros(1))], 1.0)
    assert torch.equal(long.grad, torch.tensor([0.6, 0.0]))
    assert torch.equal(short.grad, torch.tensor([0.8]))
    clip_gradients([long, short], 10.0)
    assert torch.equal(short.grad, torch.tensor([0.8]))


def test_a_gpu_without_a_number_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch takes no other as the current one."""
    chosen: list[int] = []
    index = torch.cuda._utils._get_device_index  # what torch's own asks first; raises for "cuda"
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(index(device)))
    monkeypatch.setattr(Trainer, "_begin", lambda self: None)
    made = trainer()
    for device in ("cpu", "cuda", "cuda:3"):
        Trainer(made.cell, made.source, made.data, device)
    assert chosen == [3]
