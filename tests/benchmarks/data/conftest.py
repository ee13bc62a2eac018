"""Small published files for the tests: declared like the real ones, served by a web server on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from declared_files import Declare
from web_server import Web

from benchmarks import registry
from benchmarks.data import corrupted
from benchmarks.data.files import fetch
from benchmarks.data.files.declared import FileSet, file_set


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Declare]:
    """``declare("cifar10", downloads=[...])`` puts other declared files in the place of ``configs/files``' own."""
    known = dict(registry.entries("files"))
    real = registry.entries
    monkeypatch.setattr(registry, "entries", lambda group: known if group == "files" else real(group))

    def change(name: str, **content: Any) -> FileSet:
        path = tmp_path / "declared" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({"page": f"https://example.org/{name}", **content}))
        known[name] = registry.Entry("files", name, path)
        _forget()
        return file_set(name)

    yield change
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    file_set.cache_clear()
    corrupted.types_of.cache_clear()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A web server that holds nothing yet, and is the mirror that everything is fetched from."""
    server = Web({})
    monkeypatch.setenv(fetch.MIRROR_VARIABLE, server.address)
    monkeypatch.setattr(fetch, "PAUSE", 0.0)
    yield server
    server.stop()
