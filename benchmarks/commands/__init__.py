"""One file a command: its one-line HELP, ``add_arguments(parser)`` and ``run(options) -> exit code``.

The file's name is the command's, with - for _. Heavy packages are imported inside ``run``, so that
``weightaug --help`` is quick.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from types import ModuleType


def commands() -> dict[str, ModuleType]:
    """Every command by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name.replace("_", "-"): importlib.import_module(f"{__name__}.{name}") for name in names}


def add_overrides(parser: argparse.ArgumentParser, example: str) -> None:
    """Settings KEY=VALUE, which may stand anywhere among the arguments; they come as ``options.overrides``."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=f"settings, e.g. {example}")


def add_cell(parser: argparse.ArgumentParser) -> None:
    """A finished cell, as ``options.cell`` and ``options.overrides`` together."""
    parser.add_argument(
        "cell",
        metavar="CELL",
        help="its id or the start of it, a folder that `weightaug export` wrote, or its settings KEY=VALUE",
    )
    add_overrides(parser, "store=FOLDER device=cpu data=FOLDER")
