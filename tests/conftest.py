"""Fixtures of all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from command_line import ROOT, CommandLine, Done

from benchmarks import cli

EXTRAS = {
    "timm": "weightaug/test_timm.py",
    "pytorch_optimizer": "baselines/test_sam_pytorch_optimizer.py",
}
collect_ignore = [test for package, test in EXTRAS.items() if find_spec(package) is None]  # all are in [dev]

LONG = ("test_reproduce.py", "test_devices.py", "test_resume.py", "test_interruption.py", "test_sharing.py")
"""Files that take longest: begun first, so that no worker of pytest-xdist is left alone with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny models are fastest on one thread, and the numbers do not depend on the machine's cores."""
    torch.set_num_threads(1)


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


@pytest.fixture(scope="session")
def genuine_cifar10(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder with the genuine CIFAR-10, made of its lossless form beside the repository."""
    packed = Path(os.environ.get("WEIGHTAUG_CIFAR10", ROOT.parent / "shared" / "data"))
    if not (packed / "unpack.py").is_file():
        pytest.skip("no genuine CIFAR-10 here; WEIGHTAUG_CIFAR10 may name the folder with its unpack.py")
    folder = tmp_path_factory.mktemp("genuine")
    command = [sys.executable, str(packed / "unpack.py"), "cifar-10", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    yield folder
    shutil.rmtree(folder)
