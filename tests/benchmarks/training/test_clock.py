"""The parts of a run's time exclude each other."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from interrupted_runs import small_trainer

from benchmarks.training import clock as clocks
from benchmarks.training.clock import Clock


def test_a_part_inside_another_is_taken_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    seconds: dict[str, float] = {"training": 1.0}
    clock = Clock("cpu", seconds, {})
    now = 5.0
    with clock("training"):
        now = 7.0
        with clock("checkpoint"):
            now = 10.0
        now = 10.5
        with clock("checkpoint"):
            now = 11.0
    now = 20.0
    assert seconds == {"training": 1.0 + 2.0 + 0.5, "checkpoint": 3.5}


def test_energy_is_counted_like_time(monkeypatch: pytest.MonkeyPatch) -> None:
    joules = iter([10.0, 11.0, 15.0, 16.0, 40.0])
    monkeypatch.setattr(clocks, "energy_counter", lambda device: lambda: next(joules))
    spent: dict[str, float] = {}
    clock = Clock("cpu", {}, spent)
    with clock("training"), clock("checkpoint"):
        pass
    assert spent == {"training": 4.0 + 24.0, "checkpoint": 1.0}


def test_energy_of_a_gpu_is_read_in_joules(monkeypatch: pytest.MonkeyPatch) -> None:
    """As NVML gives it: thousandths of a joule of the GPU with torch's UUID."""
    named: list[str] = []

    def handle(name: str) -> str:
        named.append(name)
        return "handle"

    class NVMLError(Exception):
        pass

    nvml = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=handle,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: 1500,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(
        clocks.torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1-2")
    )
    read = clocks.energy_counter.__wrapped__("cuda:0")
    assert read is not None
    assert read() == 1.5
    assert named == ["GPU-1-2"]

    def fails(handle: str) -> int:
        raise NVMLError

    nvml.nvmlDeviceGetTotalEnergyConsumption = fails
    assert clocks.energy_counter.__wrapped__("cuda:0") is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert clocks.energy_counter.__wrapped__("cuda:0") is None
    assert clocks.energy_counter("cpu") is None


def test_training_excludes_checkpoints_and_the_tests_of_every_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each slowed down by so much that it would show."""
    from benchmarks.training import checkpoint, trainer

    save, official = checkpoint.save, trainer.official_errors

    def slow_save(*arguments: object) -> None:
        time.sleep(0.3)
        save(*arguments)  # type: ignore[arg-type]

    def slow_test(*arguments: object) -> dict[str, float]:
        time.sleep(0.3)
        return official(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "save", slow_save)
    monkeypatch.setattr(trainer, "official_errors", slow_test)
    run = small_trainer("evaluation.official_was=true", "recipe.batch_size=64")
    run.step = lambda x, y: (x * 0).sum()  # type: ignore[method-assign]
    run.run(tmp_path / "checkpoint.pt", every=0)
    seconds = run.progress.seconds
    assert seconds["checkpoint"] >= 4 * 0.3  # after the step and after the epoch, twice
    assert seconds["evaluation"] >= 2 * 0.3
    assert seconds["training"] < 0.3
