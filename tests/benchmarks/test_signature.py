"""Signatures as the source has them are those that importing gives."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing
from typing import Any

import pytest
from command_line import ROOT, environment

from benchmarks import config, registry
from benchmarks.errors import UserError
from benchmarks.signature import _find, _split, _UnclearError, _written, has, signature
from benchmarks.typed import read_yaml

TARGETS = sorted(
    {
        str(read_yaml(entry.path)["_target_"])
        for group in (*config.COMPONENTS, config.LAUNCHER)
        for entry in registry.entries(group).values()
    }
)


def shown(parameters: typing.Iterable[tuple[str, Any, Any]]) -> list[tuple[str, Any, Any]]:
    """Name, default and what of the type a config can say."""
    return [(name, default, str(config._config_type(hint))) for name, hint, default in parameters]


@pytest.mark.parametrize("target", TARGETS)
def test_a_signature_is_what_importing_gives(target: str) -> None:
    built = registry.locate(target)
    hints = typing.get_type_hints(built.__init__ if inspect.isclass(built) else built)
    imported = inspect.signature(built).parameters
    found = signature(target).parameters
    assert [p.kind for p in found.values()] == [p.kind for p in imported.values()]
    assert shown((name, p.annotation, p.default) for name, p in found.items()) == shown(
        (name, hints.get(name, Any), p.default) for name, p in imported.items()
    )
    assert has(target, "content") == hasattr(built, "content")


def test_methods_and_small_data_sets_need_no_import() -> None:
    for target in ("weightaug.DAMP", "weightaug.WAS", "baselines.SAM", "benchmarks.data.digits.Digits"):
        assert _written(*_find(*_split(target))).parameters


@pytest.mark.parametrize("target", ["collections.Counter", "benchmarks.cell.nothing", "weightaug.copies.nn"])
def test_what_is_not_ours_or_not_there_is_not_read(target: str) -> None:
    with pytest.raises(_UnclearError):
        _find(*_split(target))
    if "nothing" in target:
        with pytest.raises(UserError, match="can't be imported"):
            signature(target)


def test_telling_how_far_a_table_is_imports_no_torch(tmp_path: Any) -> None:
    program = (
        "import sys; from benchmarks.cli import main; main(['status', 'damp/table2', '--scale', 'smoke']); "
        "print([name for name in ('torch', 'numpy', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(str(ROOT)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
