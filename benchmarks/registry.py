"""The registry: what exists, by name. The config groups are it.

A file ``configs/method/damp.yaml`` registers the method ``damp``; its ``_target_`` names the class. A package of
somebody else's joins with one entry point in the group ``weightaug.configs`` whose value is a package (or folder in
one) laid out like ours: ``method/mine.yaml``, ``table/mine/table1.yaml``, ...
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.errors import UserError, one_line, unknown_name
from benchmarks.terminal import warn
from benchmarks.typed import read_yaml

ENTRY_POINTS = "weightaug.configs"
OWN_FOLDER = Path(__file__).resolve().parent.parent / "configs"
ABOUT = ("description", "made_for")
"""Keys of an entry's file that tell about it; all others are hyper-parameters of its ``_target_``."""
EXTERNAL = "external"
"""The model that stands for all those called ``library/name``, such as ``torchvision/swin_t``."""


@dataclass(frozen=True)
class Entry:
    """One registered name: the group it belongs to and the file that defines it."""

    group: str
    name: str
    path: Path

    @property
    def description(self) -> str:
        return str(read_yaml(self.path).get("description", ""))

    @property
    def made_for(self) -> str | None:
        """The data set that a model's authors made it for."""
        return read_yaml(self.path).get("made_for")


@cache
def _plugins() -> tuple[tuple[str, str, Path], ...]:
    """Name, package and config folder of every installed plug-in."""
    found = []
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            spec = importlib.util.find_spec(point.value)
        except Exception as error:  # importing somebody's package can raise anything
            warn(f"plug-in {point.name!r} is left out: {one_line(error)}")
            continue
        if spec is None or not spec.submodule_search_locations:
            warn(f"plug-in {point.name!r} is left out: {point.value!r} is not an installed package")
            continue
        found.append((point.name, point.value, Path(next(iter(spec.submodule_search_locations)))))
    return tuple(found)


@cache
def folders() -> tuple[Path, ...]:
    """The config folders: our own first, then those of installed plug-ins."""
    return (OWN_FOLDER, *(folder for _, _, folder in _plugins()))


def plugin_files(foreign: Sequence[str]) -> dict[str, tuple[Path, list[Path]]]:
    """Of each plug-in by its name, the folder that its packages lie in, and the files of them.

    Its packages are that of its configs and those beside it that their ``_target_`` names, without ``foreign`` ones.
    """
    found = {}
    for name, value, folder in _plugins():
        root = folder.parents[value.count(".")]
        targets = map(_target, folder.rglob("*.yaml"))
        packages = {value.partition(".")[0], *(target.partition(".")[0] for target in targets)} - {
            "",
            *foreign,
        }
        files = [root / f"{package}.py" for package in packages]
        files += [path for package in packages for path in (root / package).rglob("*")]
        found[name] = (root, [path for path in files if path.is_file() and not _made(path.relative_to(root))])
    return found


def _target(path: Path) -> str:
    """What a config names; nothing where a file is none, such as a plug-in's own list, or is broken."""
    try:
        return str(read_yaml(path).get("_target_", ""))
    except (UserError, ValueError):
        return ""


def _made(path: Path) -> bool:
    """Whether a file is a tool's: compiled or hidden."""
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


@cache
def entries(group: str) -> dict[str, Entry]:
    """Everything registered in ``group``, by name; a table's name is its path, such as ``damp/table2``."""
    found: dict[str, Entry] = {}
    for folder in folders():
        for path in sorted((folder / group).rglob("*.yaml")):
            name = path.relative_to(folder / group).with_suffix("").as_posix()
            if name in found:
                raise UserError(f"two files register the {group} {name!r}: {found[name].path} and {path}")
            found[name] = Entry(group, name, path)
    return found


def lookup(group: str, name: str) -> Entry:
    """The entry called ``name``, or an error that names the nearest one."""
    known = entries(group)
    if name not in known and group == "model" and "/" in name:
        return known[EXTERNAL]
    if name not in known and group == "table":
        raise unknown_name("table", name, known, hint="; a table that is not listed is not registered yet")
    if name not in known:
        raise unknown_name(group, name, known, hint=f"; see `weightaug list {group}s`")
    return known[name]


def locate(target: str) -> Callable[..., Any]:
    """Import what a config's ``_target_`` names, e.g. ``weightaug.DAMP``."""
    module, _, attribute = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"_target_ {target!r} can't be imported: {error}") from error
