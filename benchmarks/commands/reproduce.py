"""`weightaug reproduce`: a whole table."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from benchmarks.commands import add_overrides

if TYPE_CHECKING:
    from benchmarks.launch.reproduce import Request

HELP = "train the cells of a table that are not done yet, then write its report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", metavar="TABLE", help="such as damp/table2; see `weightaug list tables`")
    parser.add_argument("--scale", default="full", help="full (default), reduced or smoke")
    parser.add_argument(
        "--seeds", type=int, help="number of seeds; default: what the table says for the scale"
    )
    parser.add_argument("--reports", default="reports", metavar="FOLDER", help="where reports go")
    parser.add_argument(
        "--with",
        dest="rows",
        action="append",
        default=[],
        metavar="OVERRIDES",
        help="one more row of your own, e.g. --with 'method=mine method.strength=2' (repeatable)",
    )
    add_overrides(parser, "device=cuda wandb=disabled workers=2")


def run(options: argparse.Namespace) -> int:
    from benchmarks.launch import reproduce

    return reproduce.reproduce(request(options))


def request(options: argparse.Namespace) -> Request:
    """What the arguments ask for; `weightaug report` takes the same."""
    from benchmarks.launch.reproduce import Request

    return Request.parse(
        options.table, options.scale, options.seeds, options.rows, options.overrides, options.reports
    )
