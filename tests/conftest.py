"""Shared by all tests: the command line as a person uses it, and the sample plug-in as if it were installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = ROOT / "tests" / "plugin"
CommandLine = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny models are fastest on one thread, and the numbers do not depend on the machine's cores."""
    torch.set_num_threads(1)


@pytest.fixture
def plugin_path(tmp_path: Path) -> str:
    """A PYTHONPATH on which the sample plug-in counts as installed."""
    info = tmp_path / "site" / "signnoise-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: signnoise\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[weightaug.configs]\nsignnoise = signnoise.configs\n")
    return os.pathsep.join([str(tmp_path / "site"), str(PLUGIN), str(ROOT)])


def environment(path: str | None = None) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": path or str(ROOT), "WANDB_SILENT": "true"}


@pytest.fixture
def weightaug(tmp_path: Path) -> CommandLine:
    """``weightaug("list", "methods")`` in an empty folder, as a process of its own."""

    def call(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "benchmarks.cli", *arguments],
            cwd=tmp_path,
            env=environment(path),
            capture_output=True,
            text=True,
            timeout=120,
        )

    return call
