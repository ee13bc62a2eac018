"""`weightaug calibrate`: how fast this machine trains such cells, and how many at once are best."""

from __future__ import annotations

import argparse

from benchmarks.commands.reproduce import add_table

HELP = (
    "measure within two minutes how fast this machine is and how many cells at once are best; needs no data"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="N",
        help="how long it may take, about; default: 90. The rest is derived",
    )
    add_table(parser, "?")


def run(options: argparse.Namespace) -> int:
    from benchmarks.commands.reproduce import request
    from benchmarks.config import load
    from benchmarks.launch.calibrate import STANDARD, calibrate
    from benchmarks.planning.calibrate import SECONDS

    if options.table and "=" in options.table:  # a setting in the place of the table, which may be left out
        options.overrides.insert(0, options.table)
        options.table = None
    seconds = SECONDS if options.seconds is None else options.seconds
    if options.table:
        asked = request(options)
        return calibrate([asked.cells[cell_id] for cell_id in asked.asked], asked.runtime, seconds)
    loaded = [load([*kind, *options.overrides]) for kind in STANDARD]
    return calibrate([cell for cell, _ in loaded], loaded[0][1], seconds)
