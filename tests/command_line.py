"""The command line as a person uses it, and the sample plug-in as if it were installed; for the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = ROOT / "tests" / "plugin"


def plugin_path(folder: Path) -> str:
    """A PYTHONPATH on which the sample plug-in counts as installed; its metadata goes into ``folder``."""
    info = folder / "site" / "signnoise-0.1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: signnoise\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[weightaug.configs]\nsignnoise = signnoise.configs\n")
    return os.pathsep.join([str(folder / "site"), str(PLUGIN), str(ROOT)])


def start(
    folder: Path, *arguments: str, path: str | None = None, among: Mapping[str, str] = os.environ
) -> subprocess.Popen[str]:
    """The command line as a process of its own in ``folder``; ``path`` is its PYTHONPATH, ``among`` the rest."""
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.cli", *arguments],
        cwd=folder,
        env=environment(path, among),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


CommandLine = Callable[..., "Done"]


def environment(path: str | None = None, among: Mapping[str, str] = os.environ) -> dict[str, str]:
    return {**among, "PYTHONPATH": path or str(ROOT), "WANDB_SILENT": "true"}


@dataclass(frozen=True)
class Done:
    """How a call of the command line ended."""

    returncode: int
    stdout: str
    stderr: str
