"""`weightaug list`: what is registered."""

from __future__ import annotations

import argparse

from benchmarks.errors import unknown_name

LISTS = {
    "methods": "method",
    "models": "model",
    "datasets": "dataset",
    "recipes": "recipe",
    "evaluations": "evaluation",
    "tables": "table",
    "devices": "device",
    "launchers": "launcher",
}
HELP = "what is registered: " + ", ".join(LISTS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="WHAT", help=" | ".join(LISTS))


def run(options: argparse.Namespace) -> int:
    if options.what not in LISTS:
        raise unknown_name("list", options.what, LISTS)
    from benchmarks.registry import entries

    found = {name: entry.description for name, entry in entries(LISTS[options.what]).items()}
    width = max(map(len, found), default=0)
    for name, description in found.items():
        print(f"{name:{width}}  {description}")
    return 0
