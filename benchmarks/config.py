"""Typed configuration: from override strings such as ``method.sigma=0.1`` to a checked :class:`Cell`.

Hydra composes the groups under ``configs/``. The types come from where the values go: the signature of a method's,
model's or data set's ``_target_``, and the dataclasses below. An unknown key or name is an error before anything
runs, and names the nearest known one.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import types
import typing
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmarks import registry
from benchmarks.cell import Cell, Component, Evaluation, Recipe
from benchmarks.errors import UserError, unknown_name
from benchmarks.runtime import Runtime

COMPONENTS = ("method", "model", "dataset")
GROUPS = (*COMPONENTS, "recipe", "evaluation")
CONTEXT = {"self", "model", "seed", "random", "num_classes", "in_channels", "image_size"}
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
    cell, runtime = copy.deepcopy(_compose(tuple(sorted(choices.items()))))
    runtime_keys = {field.name for field in dataclasses.fields(Runtime)}
    for key, value in values:
        target = runtime if key in runtime_keys else cell
        _update(target, key, value, also=() if target is runtime else runtime_keys)
    return _cell(cell), Runtime(**_plain(runtime))


def _parse(text: str) -> tuple[str, Any]:
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise UserError(f"can't read {text!r} as key=value: {str(error).splitlines()[0]}") from error
    if override.is_delete() or override.is_add() or override.is_force_add() or override.is_sweep_override():
        raise UserError(f"{text!r}: only plain key=value is understood here")
    return override.key_or_group, override.value()


@cache
def _compose(choices: tuple[tuple[str, str], ...]) -> tuple[DictConfig, DictConfig]:
    """The cell's config for these group choices, every part merged into its schema."""
    selected = []
    architecture = None
    for group, name in choices:
        if group == "model" and "/" in name:  # torchvision/<name>, timm/<name>
            architecture, name = name, "external"
        registry.lookup(group, name)
        selected.append(f"{group}={name}")
    search_path = ",".join(f"file://{folder}" for folder in registry.folders()[1:])
    with initialize_config_dir(str(registry.OWN_FOLDER), version_base="1.3"):
        raw = compose("cell", overrides=[*selected, f"hydra.searchpath=[{search_path}]"], return_hydra_config=True)
    chosen = raw.hydra.runtime.choices
    typed: dict[str, Any] = {}
    for group in COMPONENTS:
        typed[group] = _component(group, chosen[group], raw[group])
    if architecture is not None:
        typed["model"].architecture = architecture
    typed["recipe"] = _merge(Recipe, raw.recipe, f"recipe {chosen['recipe']!r}")
    typed["evaluation"] = _merge(Evaluation, raw.evaluation, f"evaluation {chosen['evaluation']!r}")
    for key in ("protocol", "scale", "seed"):
        typed[key] = raw[key]
    cell = OmegaConf.create(typed)
    OmegaConf.set_struct(cell, True)
    return cell, OmegaConf.structured(Runtime)


def _component(group: str, name: str, node: DictConfig) -> DictConfig:
    """The typed node of one method, model or data set, with its name and ``_target_``."""
    values = dict(node)
    values.pop("description", None)
    target = values.pop("_target_", None)
    if target is None:
        raise UserError(f"configs/{group}/{name}.yaml lacks _target_, the class or function it stands for")
    merged = _merge(schema(str(target)), values, f"{group} {name!r}")
    fixed = {"name": name, "_target_": target}
    return OmegaConf.unsafe_merge(fixed, merged)


@cache
def schema(target: str) -> type:
    """A dataclass of the hyper-parameters in the signature of ``target``."""
    built = registry.locate(target)
    hints = typing.get_type_hints(built.__init__ if inspect.isclass(built) else built)
    fields: list[tuple[str, Any, Any]] = []
    for parameter in inspect.signature(built).parameters.values():
        if parameter.name in CONTEXT or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if parameter.default is parameter.empty:
            raise UserError(f"{target}: hyper-parameter {parameter.name!r} needs a default")
        default = parameter.default
        factory = dataclasses.field(default_factory=lambda default=default: copy.deepcopy(default))
        fields.append((parameter.name, _config_type(hints.get(parameter.name, Any)), factory))
    return dataclasses.make_dataclass(f"{target.rpartition('.')[2]}Config", fields)


def _config_type(hint: Any) -> Any:
    """What of a type hint a config file can say: callables and modules drop out of a union."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if member in (int, float, bool, str, type(None))]
        if members == [type(None)] or not members:
            return Any
        return typing.Union[tuple(members)]  # noqa: UP007 - built at run time
    if typing.get_origin(hint) is typing.Literal:
        return str
    return hint


def _merge(kind: type, values: Any, where: str) -> DictConfig:
    known = [field.name for field in dataclasses.fields(kind)]
    for key in values:
        if key not in known:
            raise unknown_name(f"key of {where}", str(key), known)
    try:
        return OmegaConf.merge(OmegaConf.structured(kind), values)
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from error


def _update(config: DictConfig, key: str, value: Any, also: Iterable[str]) -> None:
    known = set(_leaves(config))
    parent = key.rpartition(".")[0]
    if key not in known and not any(key.startswith(f"{leaf}.") for leaf in known):
        siblings = [leaf for leaf in known if leaf.rpartition(".")[0] == parent]
        raise unknown_name("key", key, siblings or {*known, *also, *GROUPS})
    if key.rpartition(".")[2] in ("name", "_target_"):
        raise UserError(f"{key!r} can't be set; choose another entry instead, e.g. method=damp")
    try:
        OmegaConf.update(config, key, value, merge=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{key}={value}: {str(error).splitlines()[0]}") from error


def _leaves(config: DictConfig, prefix: str = "") -> Iterable[str]:
    for key in config:
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not prefix:
            yield from _leaves(node, f"{key}.")
        else:
            yield f"{prefix}{key}"


def _plain(config: DictConfig) -> dict[str, Any]:
    return typing.cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


def _cell(config: DictConfig) -> Cell:
    values = _plain(config)
    if not isinstance(values["seed"], int) or values["seed"] < 0:
        raise UserError(f"seed={values['seed']}: the seed is a whole number from 0")
    parts: dict[str, Any] = {}
    for group in COMPONENTS:
        node = values.pop(group)
        name, target = node.pop("name"), node.pop("_target_")
        defaults = dataclasses.asdict(schema(target)())
        parts[group] = Component(name, target, node, {k: v for k, v in node.items() if v != defaults[k]})
    recipe, evaluation = Recipe(**values.pop("recipe")), Evaluation(**values.pop("evaluation"))
    recipe.check()
    evaluation.check()
    return Cell(**parts, recipe=recipe, evaluation=evaluation, **values)


def list_group(group: str) -> list[tuple[str, str]]:
    """(name, description) of everything registered in ``group``."""
    return [(name, entry.description) for name, entry in registry.entries(group).items()]


def config_folder() -> Path:
    return registry.OWN_FOLDER
