"""Typed configuration: from override strings such as ``method.sigma=0.1`` to a checked :class:`Cell`.

Hydra composes the groups under ``configs/``. The types come from where the values go: the signature of a method's,
model's or data set's ``_target_``, and the dataclasses below. An unknown key or name is an error before anything
runs, and names the nearest known one.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmarks import registry
from benchmarks.cell import Cell, Component, Evaluation, Recipe
from benchmarks.errors import UserError, one_line, unknown_name
from benchmarks.runtime import Runtime
from benchmarks.signature import has, signature
from benchmarks.typed import build, read_yaml

COMPONENTS = ("method", "model", "dataset")
SETTINGS = {"recipe": Recipe, "evaluation": Evaluation}
LAUNCHER = "launcher"
GROUPS = (*COMPONENTS, *SETTINGS, LAUNCHER)
PLAIN = ("protocol", "scale", "seed")
SCALARS = (int, float, bool, str)
CONTEXT = {
    *("self", "model", "seed", "random", "num_classes", "in_channels", "image_size", "source", "data"),
    *("cache", "expected"),
}
"""Arguments that the harness supplies; all others of a ``_target_`` are hyper-parameters."""


def load(overrides: Sequence[str]) -> tuple[Cell, Runtime]:
    """Compose one cell, and how to run it, from Hydra overrides."""
    choices: dict[str, str] = {}
    values: list[tuple[str, Any]] = []
    for text in overrides:
        key, value = _parse(text)
        if key in GROUPS:
            choices[key] = str(value)
        else:
            values.append((key, value))
    parts = _parts(choices)
    runtime: dict[str, Any] = {}
    for key, value in values:
        _set(parts, runtime, key, value)
    runtime[LAUNCHER] = _component(LAUNCHER, parts[LAUNCHER])
    machine = build(Runtime, runtime, "runtime settings")
    return _cell(parts, machine), machine


def load_all(settings: Sequence[Sequence[str]]) -> list[tuple[Cell, Runtime]]:
    """As :func:`load` of each; quicker, for Hydra takes as long for one entry of a group as for dozens."""
    chosen = [_parse(text) for text in dict.fromkeys(text for overrides in settings for text in overrides)]
    named = [(key, str(value)) for key, value in chosen if key in GROUPS]
    _compose([*_default_cell()[0].items(), *named])
    return [load(overrides) for overrides in settings]


def cell_of(config: Mapping[str, Any]) -> Cell:
    """The cell whose full config (:meth:`Cell.as_dict`) a card keeps.

    Settings that came with a later version have their defaults, whatever our configs say today. Where files of the
    machine that trained it were named, the cell has what stands for them in its id.
    """
    try:
        parts = _parts({group: str(config[group]["name"]) for group in COMPONENTS})
        for group in COMPONENTS:
            parts[group] = {"_target_": parts[group].get("_target_"), **config[group]}
        return _cell({**parts, **{key: config[key] for key in (*SETTINGS, *PLAIN)}})
    except (KeyError, TypeError) as error:
        raise UserError(f"the card's config lacks or garbles {error}") from error


def cells_of(configs: Sequence[Mapping[str, Any]]) -> list[Cell | None]:
    """As :func:`cell_of` of each; None where it is not of this version of the code."""

    def of(config: Mapping[str, Any]) -> Cell | None:
        try:
            return cell_of(config)
        except UserError:
            return None

    chosen = []
    for config in configs:
        named = ((group, config.get(group)) for group in COMPONENTS)
        chosen += [
            (group, part["name"]) for group, part in named if isinstance(part, dict) and "name" in part
        ]
    _compose([pair for pair in chosen if pair[1] in registry.entries(pair[0])])
    return [of(config) for config in configs]


@cache
def _parse(text: str) -> tuple[str, Any]:
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise UserError(f"can't read {text!r} as key=value: {one_line(error)}") from error
    if override.is_delete() or override.is_add() or override.is_force_add() or override.is_sweep_override():
        raise UserError(f"{text!r}: only plain key=value is understood here")
    return override.key_or_group, override.value()


_composed: dict[tuple[str, str], dict[str, Any]] = {}
"""What the files say for an entry of a group, but for SETTINGS with its ``name``; by group and name."""


@cache
def _default_cell() -> tuple[dict[str, str], dict[str, Any]]:
    """What configs/cell.yaml says: the entry of each group, and the other settings."""
    raw = read_yaml(registry.OWN_FOLDER / "cell.yaml")
    defaults = [item for item in raw.pop("defaults") if item != "_self_"]
    return {group: name for item in defaults for group, name in item.items()}, raw


def _parts(choices: Mapping[str, str]) -> dict[str, Any]:
    """A cell as the files have it, with these entries in the place of the default ones."""
    defaults, plain = _default_cell()
    chosen = list({**defaults, **choices}.items())
    _compose(chosen)
    return copy.deepcopy(plain | {group: _composed[group, name] for group, name in chosen})


def _compose(chosen: Sequence[tuple[str, str]]) -> None:
    """Let Hydra compose those of the entries that are not in ``_composed`` yet, each by itself, all at once."""
    new = {pair: registry.lookup(*pair) for pair in dict.fromkeys(chosen) if pair not in _composed}
    if not new:
        return
    # Each in a package of its own, for which any name will do: names of entries may have dots and slashes.
    selected = [f"+{group}@entry{i}={entry.name}" for i, ((group, _), entry) in enumerate(new.items())]
    search_path = ",".join(f"file://{folder}" for folder in registry.folders()[1:])
    with initialize_config_dir(str(registry.OWN_FOLDER), version_base="1.3"):
        composed = compose(overrides=[*selected, f"hydra.searchpath=[{search_path}]"])
    for i, ((group, name), entry) in enumerate(new.items()):
        try:
            part = cast(dict[str, Any], OmegaConf.to_container(composed[f"entry{i}"], resolve=True))
        except OmegaConfBaseException as error:  # such as ${oc.env:NAME} where there is no such variable
            raise UserError(f"{group}={entry.name}: {one_line(error)}") from error
        for key in registry.ABOUT:
            part.pop(key, None)
        if group not in SETTINGS:
            part["name"] = name
        if entry.name != name:  # torchvision/<name>, timm/<name>
            part["architecture"] = name
        _composed[group, name] = part


def _set(parts: dict[str, Any], runtime: dict[str, Any], key: str, value: Any) -> None:
    """Put the value of one override in its place, if there is such a place."""
    group, _, rest = key.partition(".")
    runtime_keys = _keys(Runtime)
    if not rest and group in runtime_keys:
        runtime[group] = value
    elif not rest and group in PLAIN:
        parts[group] = value
    elif group in GROUPS and rest:
        *path, last = rest.split(".")
        known = _keys(_kind(group, parts[group]))
        if rest.split(".")[0] not in known:
            raise unknown_name(f"key of {group}", rest, known)
        node = parts[group]
        for step in path:
            node = node.setdefault(step, {})
            if not isinstance(node, dict):
                raise UserError(f"{key}: {group}.{rest.split('.')[0]} is a single value and has no parts")
        node[last] = value
    else:
        raise unknown_name("key", key, {*PLAIN, *runtime_keys, *GROUPS})


def _kind(group: str, part: dict[str, Any]) -> type:
    """The dataclass that a part of the config must fit."""
    if group in SETTINGS:
        return SETTINGS[group]
    if "_target_" not in part:
        raise UserError(
            f"configs/{group}/{part['name']}.yaml lacks _target_, the class or function it stands for"
        )
    return schema(str(part["_target_"]))


def _keys(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


@cache
def schema(target: str) -> type:
    """A dataclass of the hyper-parameters in the signature of ``target``."""
    fields: list[tuple[str, Any, Any]] = []
    for parameter in signature(target).parameters.values():
        if parameter.name in CONTEXT or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if parameter.default is parameter.empty:
            raise UserError(f"{target}: hyper-parameter {parameter.name!r} needs a default")
        kind = _config_type(parameter.annotation)
        if kind is not None:
            make = functools.partial(copy.deepcopy, parameter.default)
            fields.append((parameter.name, kind, dataclasses.field(default_factory=make)))
    return dataclasses.make_dataclass(f"{target.rpartition('.')[2]}Config", fields)


def _config_type(hint: Any) -> Any:
    """What of a type hint a config can say: of a union its scalars. None for an argument for code alone."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        scalars = tuple(member for member in typing.get_args(hint) if member in SCALARS)
        containers = [member for member in typing.get_args(hint) if typing.get_origin(member) in (list, dict)]
        if not scalars and not containers:
            return None
        optional = type(None) in typing.get_args(hint)
        return typing.Union[(*scalars, *containers, *([type(None)] if optional else []))]
    return hint if hint is Any or hint in SCALARS or typing.get_origin(hint) in (list, dict) else None


def _cell(parts: dict[str, Any], runtime: Runtime | None = None) -> Cell:
    """The typed cell, or an error that names the key whose value does not fit.

    ``runtime``: without it the parts are a card's, and no files are looked at.
    """
    typed: dict[str, Any] = {key: parts[key] for key in PLAIN}
    for group, kind in SETTINGS.items():
        typed[group] = build(kind, parts[group], group)
        typed[group].check()
    for group in COMPONENTS:
        typed[group] = component = _component(group, parts[group])
        if group == "dataset" and runtime and has(component.target, "content"):
            describe: Any = registry.locate(component.target)
            content = describe.content(runtime.cache_folder, **component.arguments)
            typed[group] = dataclasses.replace(component, content=content)
    return build(Cell, typed, "cell")


def _component(group: str, part: dict[str, Any]) -> Component:
    """The typed entry of a group: its settings checked against the signature of its ``_target_``."""
    kind = _kind(group, part)
    values = {key: value for key, value in part.items() if key not in ("name", "_target_")}
    arguments = dataclasses.asdict(build(kind, values, group))
    defaults = dataclasses.asdict(kind())
    changed = {key: value for key, value in arguments.items() if value != defaults[key]}
    return Component(part["name"], part["_target_"], arguments, changed)
