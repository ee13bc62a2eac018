"""`weightaug reproduce`: a whole table."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from benchmarks.commands import add_overrides
from benchmarks.terminal import note

if TYPE_CHECKING:
    from benchmarks.launch.request import Request

HELP = "train the cells of a table that are not done yet, then write its report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_table(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="train nothing; say what is done, what is missing here and how long the rest will take",
    )
    parser.add_argument("--cells", action="store_true", help="with --dry-run: name every cell")
    parser.add_argument(
        "--on",
        metavar="DEVICE",
        help="with --dry-run: plan for known devices, such as a100_80gb or 8xh200, instead of this machine; see "
        "`weightaug list devices`",
    )


def add_table(parser: argparse.ArgumentParser, name: str | None = None) -> None:
    """A table at a scale, as commands about a table take it. ``name``: "?" where the table may be left out."""
    parser.add_argument(
        "table", metavar="TABLE", nargs=name, help="such as damp/table2; see `weightaug list tables`"
    )
    parser.add_argument("--scale", default="full", help="full (default), reduced or smoke")
    parser.add_argument(
        "--seeds",
        help="how many seeds, or which: 5, 0,2,5 or 3..7; default: what the table says for the scale",
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
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="train these cells alone, by panel, row, seed, method, model or dataset, e.g. --only method=damp,sam "
        "(repeatable)",
    )
    add_overrides(parser, "device=cuda wandb=disabled workers=2")


def run(options: argparse.Namespace) -> int:
    if (
        options.dry_run and sys.stderr.isatty()
    ):  # before torch is imported, which takes the first of the seconds
        note("planning: composes the cells, then counts FLOPs and memory of each kind; takes some seconds")
    asked = request(options)
    if options.dry_run:
        from benchmarks.launch.plan import dry_run

        return dry_run(asked, options.cells, options.on)
    if options.cells or options.on:
        from benchmarks.errors import UserError

        raise UserError(f"{'--cells' if options.cells else '--on'} belongs to --dry-run; add that")
    from benchmarks.launch import reproduce

    return reproduce.reproduce(asked)


def request(options: argparse.Namespace) -> Request:
    """What the arguments ask for; all commands about a table take the same."""
    from benchmarks.launch.request import Request

    return Request.parse(
        options.table,
        options.scale,
        options.seeds,
        options.rows,
        options.overrides,
        options.reports,
        options.only,
    )
