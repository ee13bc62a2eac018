"""The signature of what a config's ``_target_`` names: from its source where that says it plainly, else imported.

Importing a method, a model or a data set imports torch, which takes seconds. Commands that only look, such as
`weightaug status`, need the names, types and defaults of hyper-parameters and nothing else of it. Only our own files
are read; a test holds what they say against what importing gives, for all that is registered.
"""

from __future__ import annotations

import ast
import inspect
import types
import typing
from functools import cache
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

from benchmarks.registry import locate

ROOT = Path(__file__).resolve().parent.parent
OWN = ("weightaug", "baselines", "benchmarks")
Definition = ast.ClassDef | ast.FunctionDef


class _UnclearError(Exception):
    """The source alone does not say it."""


@cache
def signature(target: str) -> Signature:
    """With types in the place of annotations; those of the source that are no plain ones are :class:`Other`."""
    try:
        return _written(*_find(*_split(target)))
    except _UnclearError:
        built = locate(target)
    hints = typing.get_type_hints(built.__init__ if inspect.isclass(built) else built)
    found = inspect.signature(built)
    typed = [p.replace(annotation=hints.get(p.name, Any)) for p in found.parameters.values()]
    return found.replace(parameters=typed)


@cache
def has(target: str, attribute: str) -> bool:
    """Whether what ``target`` names has a method of the name."""
    try:
        return _method(*_find(*_split(target)), attribute) is not None
    except _UnclearError:
        return hasattr(locate(target), attribute)


class Other:
    """Stands for every type that no config can say."""


PLAIN = {kind.__name__: kind for kind in (int, float, bool, str, list, dict)} | {"Any": Any}


def _split(target: str) -> tuple[str, str]:
    module, _, name = target.rpartition(".")
    return module, name


def _find(module: str, name: str) -> tuple[str, Definition]:
    """Where a class or function is defined: its module, and its source there."""
    for node in _parsed(module).body:
        if isinstance(node, Definition) and node.name == name:
            if node.decorator_list:
                raise _UnclearError
            return module, node
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _find(node.module, alias.name)
    raise _UnclearError


@cache
def _parsed(module: str) -> ast.Module:
    parts = module.split(".")
    place = ROOT.joinpath(*parts)
    for path in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
        if parts[0] in OWN and path.is_file():
            return ast.parse(path.read_text(encoding="utf-8"))
    raise _UnclearError


def _method(module: str, definition: Definition, name: str) -> ast.FunctionDef | None:
    """A method of a class, or of the class that it inherits from."""
    for node in definition.body if isinstance(definition, ast.ClassDef) else ():
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    bases = definition.bases if isinstance(definition, ast.ClassDef) else []
    if not bases:
        return None
    if len(bases) > 1 or not isinstance(bases[0], ast.Name):
        raise _UnclearError
    if bases[0].id == "ABC":
        return None
    return _method(*_find(module, bases[0].id), name)


def _written(module: str, definition: Definition) -> Signature:
    of_class = isinstance(definition, ast.ClassDef)
    function = (
        definition if isinstance(definition, ast.FunctionDef) else _method(module, definition, "__init__")
    )
    if function is None:
        return Signature()
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    defaults = [*[None] * (len(positional) - len(given.defaults)), *given.defaults]
    if of_class:  # without self
        positional, defaults = positional[1:], defaults[1:]
    found = [
        _parameter(*pair, Parameter.POSITIONAL_OR_KEYWORD) for pair in zip(positional, defaults, strict=True)
    ]
    keywords = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    return Signature([*found, *(_parameter(*pair, Parameter.KEYWORD_ONLY) for pair in keywords)])


def _parameter(argument: ast.arg, default: ast.expr | None, kind: Any) -> Parameter:
    hint = Any if argument.annotation is None else _type(argument.annotation)
    try:
        value = Parameter.empty if default is None else ast.literal_eval(default)
    except (ValueError, TypeError) as error:  # the value of a name, say
        raise _UnclearError from error
    return Parameter(argument.arg, kind, default=value, annotation=hint)


def _type(annotation: ast.expr) -> Any:
    match annotation:
        case ast.Constant(value=None):
            return type(None)
        case ast.Name(id=name):
            return PLAIN.get(name, Other)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _type(left) | _type(right)
        case ast.Subscript(value=ast.Name(id="list" | "dict" as name), slice=inside):
            items = inside.elts if isinstance(inside, ast.Tuple) else [inside]
            return types.GenericAlias(PLAIN[name], tuple(map(_type, items)))
    return Other
