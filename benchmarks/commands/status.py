"""`weightaug status`: how far a table is, on whatever machines it is being made."""

from __future__ import annotations

import argparse

from benchmarks.commands import reproduce

HELP = "which cells of a table are done, running (where, since when, time left), failed (why) or waiting"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    reproduce.add_table(parser)
    parser.add_argument("--json", action="store_true", help="the same for programs, as one JSON object")


def run(options: argparse.Namespace) -> int:
    from benchmarks.launch.status import show

    return show(reproduce.request(options), options.json)
