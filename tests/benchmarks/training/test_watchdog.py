"""A step that hangs is reported where it hangs, once, and the run goes on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from interrupted_runs import small_trainer

from benchmarks.training.watchdog import Watchdog


def test_a_stuck_step_is_reported_once_with_its_stack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small_trainer("recipe.epochs=2", "recipe.batch_size=16")
    backward = run.method.backward

    def sleeps(criterion: object, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if run.progress.step in (2, 5):
            time.sleep(1.2)
        return backward(criterion, x, y)  # type: ignore[arg-type]

    run.method.backward = sleeps  # type: ignore[assignment, method-assign]
    path = tmp_path / "work" / "stuck.txt"
    watchdog = Watchdog("cell aa (sgd)", path, least=0.4, factor=5.0)
    run.run(watchdog=watchdog)
    report = path.read_text()
    assert report == capsys.readouterr().err
    assert report.count("warning: cell aa (sgd): no step has finished for ") == 2
    assert report.count(" in sleeps\n") == 2
    assert run.progress.epoch == 2


def test_the_limit_follows_the_median_step(tmp_path: Path) -> None:
    watchdog = Watchdog("aa", tmp_path / "stuck.txt", least=0.05, factor=100.0)
    assert watchdog.limit == 5.0  # the first step may compile
    with watchdog:
        for _ in range(3):
            time.sleep(0.01)
            watchdog.step()
        assert 1.0 <= watchdog.limit < 5.0
    assert not (tmp_path / "stuck.txt").exists()


def test_it_sleeps_between_epochs(tmp_path: Path) -> None:
    """An evaluation is no step."""
    watchdog = Watchdog("aa", tmp_path / "stuck.txt", least=0.02, factor=1.0)
    with watchdog:
        watchdog.step()
    time.sleep(0.1)
    with watchdog:
        watchdog.step()
    assert not (tmp_path / "stuck.txt").exists()
