"""Exact resume: violent deaths of every method's run, and checkpoints that can't be used."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import ROOT, environment
from interrupted_runs import small_trainer

from benchmarks.registry import entries
from benchmarks.training import checkpoint
from benchmarks.training.trainer import Trainer

METHODS = list(entries("method"))


@pytest.mark.parametrize("runs", [METHODS, ["stream damp"]], ids=["every method", "streamed"])
def test_killed_at_random_moments_a_run_ends_with_the_same_bits(runs: list[str]) -> None:
    """Weights, curve and metrics; in the midst of epochs, with every augmentation, also while it writes.

    Streamed images are read by several loader processes, with random crops, RandAugment and MixUp.
    """
    path = f"{ROOT}:{ROOT / 'tests'}"
    command = [sys.executable, str(ROOT / "tests" / "interrupted_runs.py"), *runs]
    done = subprocess.run(
        command, env=environment(path) | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == runs
    for method, run in found.items():
        assert run["differing"] == [], f"{method}: {run}"
        killed = -signal.SIGKILL
        # Of several deaths in the same place only the first meets a run that is not past it.
        assert run["codes"][:2] == [0, killed], f"{method}: {run}"
        assert set(run["codes"][2:-1]) <= {killed, 0}, f"{method}: {run}"
        assert run["codes"][-1] == 0, f"{method}: {run}"
        assert run["resumed"] >= 2, f"{method}: {run}"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The newest of two checkpoints of a run, after 3 and 2 steps."""
    path, run = tmp_path / "checkpoint.pt", small_trainer()
    _train(run, path, 3)
    return path


def _train(run: Trainer, path: Path, steps: int) -> None:
    def stop(*_: object) -> None:
        if run.progress.step == steps:
            raise InterruptedError

    run.optimizer.register_step_pre_hook(stop)
    with pytest.raises(InterruptedError):
        run.run(path, every=0)


def _resumed(run: Trainer, path: Path) -> tuple[int, float]:
    """The first step that ``run`` trains when it continues from ``path``, and the loss of its last epoch."""
    steps: list[int] = []
    step = run.step

    def noted(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        steps.append(run.progress.step)
        return step(x, y)

    run.step = noted  # type: ignore[method-assign]
    run.run(path)
    return steps[0], run.progress.curve[-1]["loss"]


def test_two_checkpoints_are_kept(saved: Path) -> None:
    states = [checkpoint.load(path, small_trainer().cell) for path in (saved, checkpoint.previous(saved))]
    assert [state["progress"]["step"] for state in states] == [3, 2]
    assert sorted(path.name for path in saved.parent.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _change(path: Path, **changes: object) -> None:
    torch.save(torch.load(path) | changes, path)


def _other_model(path: Path) -> None:
    state = torch.load(path)
    state["model"]["fc.weight"] = torch.zeros(5, 3)
    torch.save(state, path)


def _other_optimizer(path: Path) -> None:
    state = torch.load(path)
    state["optimizer"][1]["momentum_buffer"] = torch.zeros(5, 3)
    torch.save(state, path)


def _other_config(path: Path) -> None:
    other = small_trainer("recipe.learning_rate=0.3")
    other.save(path)


BAD = {
    "truncated": (_truncate, "it is damaged or no checkpoint: "),
    "flipped bit": (_flip, "has changed since it was written"),
    "version": (lambda path: _change(path, version=99), "it has layout version 99, this program reads 2"),
    "config": (_other_config, "with another recipe.learning_rate"),
    "model": (_other_model, "it is of another model: fc.weight is [5, 3] there and "),
    "optimizer": (_other_optimizer, "its optimizer is of other parameters: number 1 is not ["),
    "progress": (lambda path: _change(path, progress={"stride": 1}), "unexpected keyword argument 'stride'"),
}


@pytest.mark.parametrize("case", BAD)
def test_of_a_bad_checkpoint_the_previous_one_is_used_and_nothing_is_deleted(
    saved: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = small_trainer()
    whole.run()
    spoil, reason = BAD[case]
    before = checkpoint.previous(saved).read_bytes()
    spoil(saved)
    if case == "config":  # saving has moved them on
        checkpoint.previous(saved).write_bytes(before)
    content = saved.read_bytes()
    run = small_trainer()
    assert _resumed(run, saved) == (2, whole.progress.curve[-1]["loss"])
    assert [path.read_bytes() for path in (saved.parent / "damaged").iterdir()] == [content]
    warning = capsys.readouterr().err
    assert reason in warning
    assert "the previous one is tried" in warning
    assert warning.count("\n") == 1
    assert run.progress.resumed == 1


def test_with_two_bad_ones_the_run_starts_anew(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = small_trainer()
    whole.run()
    _truncate(saved)
    _truncate(checkpoint.previous(saved))
    assert _resumed(small_trainer(), saved) == (0, whole.progress.curve[-1]["loss"])
    assert len(list((saved.parent / "damaged").iterdir())) == 2
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_checkpoint_is_small_and_knows_no_device(optimizer: str, method: str, tmp_path: Path) -> None:
    """At most 12 bytes a parameter, and what each tensor takes in the archive."""
    run = small_trainer(
        "recipe.epochs=1", "recipe.mixup_alpha=null", f"recipe.optimizer={optimizer}", f"method={method}"
    )
    x = torch.zeros(16, 1, 8, 8)
    run.step(x, torch.arange(16) % 10)
    run.save(tmp_path / "checkpoint.pt")
    content = (tmp_path / "checkpoint.pt").read_bytes()
    parameters = [*run.model.parameters(), *run.method.parameters()]
    numbers, tensors = sum(p.numel() for p in parameters), len(parameters)
    per_parameter = 8 if optimizer == "sgd" else 12
    assert len(content) <= per_parameter * numbers + 2000 * tensors
    assert b"cuda" not in content


def test_parts_of_larger_tensors_and_other_layouts_are_kept_apart(tmp_path: Path) -> None:
    run = small_trainer()
    buffer = torch.arange(1000.0)
    checkpoint.save(
        tmp_path / "a.pt", run.cell, {"part": buffer[:10], "tied": [buffer, buffer.view(10, 100)]}
    )
    assert (tmp_path / "a.pt").stat().st_size < 4000 + 4000
    state = checkpoint.load(tmp_path / "a.pt", run.cell)
    assert torch.equal(state["part"], buffer[:10])
    assert torch.equal(state["tied"][1], buffer.view(10, 100))


def test_a_checkpoint_of_another_memory_layout_continues_with_the_same_numbers(saved: Path) -> None:
    """As between a CPU and a GPU: the optimizer's state takes on the layout of the model that it is loaded into."""
    run = small_trainer()
    run.model.to(memory_format=torch.channels_last)
    state = checkpoint.load(saved, run.cell)
    checkpoint.load_optimizer(run.optimizer, state["optimizer"])
    for number, parameter in enumerate(p for group in run.optimizer.param_groups for p in group["params"]):
        buffer = run.optimizer.state[parameter]["momentum_buffer"]
        assert buffer.stride() == parameter.stride()
        assert torch.equal(buffer, state["optimizer"][number]["momentum_buffer"])


def test_what_a_killed_writer_leaves_is_cleared_away(saved: Path) -> None:
    left = saved.parent / ".checkpoint.new.pt.partial-1"
    left.write_bytes(b"half")
    small_trainer().run(saved)
    assert not left.exists()
    assert time.time() - saved.stat().st_mtime < 60  # the end of the training is kept as well
