"""Every engine computes the eager step; what fails the rehearsal is not used, and leaves no trace."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from recorded_graph import recorded_graph

from benchmarks.config import load
from benchmarks.data.batches import epoch_batches
from benchmarks.data.dataset import DataSet, Images
from benchmarks.errors import UserError
from benchmarks.runtime import Runtime
from benchmarks.training import engine, graph
from benchmarks.training.engine import Engine
from benchmarks.training.step import TrainingStep
from benchmarks.training.trainer import Trainer

TINY = ['model.blocks="1"', "model.width=8", "recipe.batch_size=16", "recipe.learning_rate=0.02"]
VIT = ["model=vit_tiny", "recipe=vit_smoke", "recipe.batch_size=16"]


def trainer(asked: str, *overrides: str) -> Trainer:
    cell = load([*(VIT if VIT[0] in overrides else TINY), *overrides])[0]
    source = cell.dataset.build()
    whole = source.load(Path())
    small = Images(whole.train.images[:200], whole.train.labels[:200])
    run = Trainer(cell, source, DataSet(small, small, whole.mean, whole.std), "cpu", asked)
    run.model.train()
    return run


def losses(run: Trainer, steps: int) -> list[float]:
    found: list[float] = []
    for epoch in range(steps):
        for x, y in epoch_batches(run.data, run.cell.recipe, run.cell.seed, epoch):
            found.append(float(run.step(x, y)))
            if len(found) == steps:
                return found
    raise AssertionError


def weights(run: Trainer) -> list[torch.Tensor]:
    return [*run.model.state_dict().values(), *run.method.parameters()]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs on the CPU, of kernels that are not compiled."""
    monkeypatch.setattr(engine, "_compile", lambda step: None)

    class OnCPU(Engine):
        def __init__(self, asked: str, step: TrainingStep, steps: int) -> None:
            super().__init__(asked, step, steps, recorded_graph)

    monkeypatch.setattr("benchmarks.training.trainer.Engine", OnCPU)


GRAPHS = [
    ["method=sgd"],
    ["method=damp"],
    ["method=damp", "method.noise=uniform", "method.sub_batches=1"],
    ["method=sam"],
    ["method=asam", "method.rho=0.5"],
    ["method=dropout"],
    ["method=damp", *VIT],
]


@pytest.mark.parametrize("overrides", GRAPHS, ids=" ".join)
def test_a_graph_repeats_the_step(graphs: None, overrides: list[str]) -> None:
    """Also with other learning rates, random numbers and batches than those of the capture."""
    eager, fast = trainer("eager", *overrides), trainer("auto", *overrides)
    assert losses(fast, 16) == pytest.approx(losses(eager, 16), rel=1e-3 if VIT[0] in overrides else 1e-4)
    assert fast.engine.record() == {
        "asked": "auto",
        "ran": "graph",
        "why": {},
        "seconds": fast.engine.seconds,
    }
    assert fast.method.step == 16
    ours, theirs = (torch.cat([w.flatten().float() for w in weights(run)]) for run in (fast, eager))
    assert (ours - theirs).norm() < 0.01 * theirs.norm()


@pytest.mark.parametrize("method", ["was", "was_damp", "corrupted_sgd"])
def test_draws_that_a_graph_would_freeze_are_refused(
    graphs: None, method: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """These draw on the CPU, which on a CUDA device is another one than the graph's."""
    kept = graph.KeptGenerators
    monkeypatch.setattr(graph, "KeptGenerators", lambda source, device: kept(source, torch.device("cuda")))
    engine._warn_once.cache_clear()
    eager, fast = trainer("eager", f"method={method}"), trainer("graph", f"method={method}")
    assert losses(fast, 4) == pytest.approx(losses(eager, 4), rel=1e-4)
    assert fast.engine.ran == "compiled"
    assert "draws on the cpu in every step" in fast.engine.why["graph"]
    assert capsys.readouterr().err.count("engine=graph: the training step runs compiled") == 1


def test_a_resumed_run_continues_in_a_graph(graphs: None, tmp_path: Path) -> None:
    whole, first, second = (trainer("auto", "method=damp", "recipe.epochs=2") for _ in range(3))
    whole.run()

    def die(entry: dict[str, float]) -> None:
        first.save(tmp_path / "checkpoint.pt")
        raise InterruptedError

    with pytest.raises(InterruptedError):
        first.run(after_epoch=die)
    second.run(tmp_path / "checkpoint.pt")
    assert (second.engine.ran, second.progress.resumed) == ("graph", 1)
    assert [e["loss"] for e in second.progress.curve] == pytest.approx(
        [e["loss"] for e in whole.progress.curve], rel=1e-5
    )


def test_a_batch_of_another_shape_runs_eagerly(graphs: None) -> None:
    runs = trainer("eager", "method=damp"), trainer("auto", "method=damp")
    found = []
    for run in runs:
        batches = list(epoch_batches(run.data, run.cell.recipe, 0, 0))[:4]
        batches.insert(2, (batches[0][0][:9], batches[0][1][:9]))
        found.append([float(run.step(x, y)) for x, y in batches])
    assert found[1] == pytest.approx(found[0], rel=1e-5)


@pytest.mark.parametrize("method", ["sgd", "damp", "sam method.sub_batches=1"])
def test_compiled_steps_give_the_eager_losses(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Over the first 100 steps, and what was compiled for one seed serves another."""
    engine._warn_once.cache_clear()
    eager, fast, other = (
        trainer(asked, *f"method={method}".split(), f"seed={seed}")
        for asked, seed in (("eager", 0), ("compiled", 0), ("compiled", 1))
    )
    assert losses(fast, 100) == pytest.approx(losses(eager, 100), rel=1e-3)
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        assert fast.engine.ran == "eager"
        assert capsys.readouterr().err.count("engine=compiled: the training step runs eager") == 1
        return
    assert fast.engine.ran == "compiled", fast.engine.why
    assert fast.engine.record()["why"] == {}
    compiled = engine._compilations()
    assert compiled > 0
    losses(other, 3)
    assert other.engine.ran == "compiled"
    assert engine._compilations() == compiled
    assert fast.model._compiled_call_impl is None  # evaluation runs the model itself


def test_without_a_compiler_training_is_eager_bit_for_bit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compile_(step: TrainingStep) -> None:
        step.compiled = fail

    def fail(*args: object) -> None:
        raise RuntimeError("No working C++ compiler found\nin any of g++")

    monkeypatch.setattr(engine, "_compile", compile_)
    engine._warn_once.cache_clear()
    eager, fallen = (trainer(asked, "method=damp") for asked in ("eager", "graph"))
    assert losses(fallen, 6) == losses(eager, 6)
    assert all(torch.equal(a, b) for a, b in zip(weights(fallen), weights(eager), strict=True))
    assert fallen.engine.why["graph"] == "CUDA graphs need a CUDA device"
    assert "No working C++ compiler" in fallen.engine.why["compiled"]
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "engine=graph: the training step runs eager (graph: CUDA graphs need" in said[0]


def test_a_compiled_model_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_(step: TrainingStep) -> None:
        step.compiled = lambda x: 1.5 * step.model._call_impl(x)

    monkeypatch.setattr(engine, "_compile", compile_)
    run = trainer("compiled")
    losses(run, 1)
    assert run.engine.ran == "eager"
    assert "off the eager step's" in run.engine.why["compiled"]


def test_auto_compiles_long_runs_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_compile", lambda step: None)
    short, long = trainer("auto"), trainer("auto", "recipe.epochs=1000")
    for run, ran in ((short, "eager"), (long, "compiled")):
        losses(run, 1)
        assert run.engine.record() == {"asked": "auto", "ran": ran, "why": {}, "seconds": run.engine.seconds}


def test_bad_settings() -> None:
    with pytest.raises(UserError, match="engine"):
        Runtime(engine="graphs")
    with pytest.raises(UserError, match="tf32 needs a CUDA device"):
        trainer("eager", "recipe.precision=tf32")
    with pytest.raises(UserError, match="precision"):
        trainer("eager", "recipe.precision=fp16")
