"""From plain YAML to dataclasses: unknown keys, missing keys and wrong types are errors that say where."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from benchmarks.errors import UserError, unknown_name

T = TypeVar("T")
LOADER = getattr(
    yaml, "CSafeLoader", yaml.SafeLoader
)  # libyaml's, where PyYAML was built with it, is far quicker


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path} must hold keys and values, not {type(raw).__name__}")
    return raw


def build(cls: type[T], raw: Any, where: str) -> T:
    """The dataclass ``cls`` filled from the mapping ``raw``; ``where`` is what errors call it."""
    if not isinstance(raw, Mapping):
        raise UserError(f"{where} must hold keys and values, not {raw!r}")
    fields, hints = _fields(cast(Hashable, cls))
    for key in raw:
        if key not in fields:
            raise unknown_name(f"key in {where}:", str(key), fields)
    for name, field in fields.items():
        optional = (
            field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        )
        if name not in raw and not optional:
            raise UserError(f"{where} lacks the key {name!r}")
    return cls(**{key: convert(hints[key], value, f"{where}: {key}") for key, value in raw.items()})


@cache
def _fields(cls: Any) -> tuple[dict[str, dataclasses.Field[Any]], dict[str, Any]]:
    """The fields of a dataclass and their types."""
    return {field.name: field for field in dataclasses.fields(cls)}, typing.get_type_hints(cls)


def convert(hint: Any, value: Any, where: str) -> Any:
    """``value`` as the type ``hint``: scalars, ``X | None``, tuples, string-keyed mappings, dataclasses."""
    if hint is Any:
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        known = [argument for argument in arguments if argument is not type(None)]
        built = [argument for argument in known if isinstance(argument, type) and isinstance(value, argument)]
        return value if built else convert(known[0], value, where)
    if origin in (tuple, list) and isinstance(value, list | tuple):
        return origin(convert(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict and isinstance(value, Mapping):
        return {str(key): convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, cast(type, hint)) else build(cast(type, hint), value, where)
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where} must be a finite number, not {value}")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise UserError(f"{where} must be {_words(hint)}, not {value!r}")


def by_name(items: tuple[T, ...], where: str) -> dict[str, T]:
    """``items`` by their ``name``; the same name twice is an error."""
    named: dict[str, T] = {}
    for item in items:
        name: str = item.name  # type: ignore[attr-defined]
        if name in named:
            raise UserError(f"{where} has the name {name!r} twice")
        named[name] = item
    return named


def _words(hint: Any) -> str:
    simple = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
    if hint in simple:
        return simple[hint]
    return {tuple: "a list", list: "a list", dict: "keys and values"}.get(typing.get_origin(hint), str(hint))
