"""Shared by all tests: the command line as a person uses it, and the sample plug-in as if it were installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from benchmarks import cli

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = ROOT / "tests" / "plugin"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny models are fastest on one thread, and the numbers do not depend on the machine's cores."""
    torch.set_num_threads(1)


def plugin_path(folder: Path) -> str:
    """A PYTHONPATH on which the sample plug-in counts as installed; its metadata goes into ``folder``."""
    info = folder / "site" / "signnoise-0.1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: signnoise\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[weightaug.configs]\nsignnoise = signnoise.configs\n")
    return os.pathsep.join([str(folder / "site"), str(PLUGIN), str(ROOT)])


def start(folder: Path, *arguments: str, path: str | None = None) -> subprocess.Popen[str]:
    """The command line as a process of its own in ``folder``; ``path`` is its PYTHONPATH."""
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.cli", *arguments],
        cwd=folder,
        env=environment(path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


CommandLine = Callable[..., "Done"]


def environment(path: str | None = None) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": path or str(ROOT), "WANDB_SILENT": "true"}


@dataclass(frozen=True)
class Done:
    """How a call of the command line ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def weightaug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> CommandLine:
    """``weightaug("list", "methods")`` in an empty folder; all but the process is as a person has it."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["weightaug", *arguments])
        capfd.readouterr()
        try:
            code = cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return call
