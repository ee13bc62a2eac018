"""`weightaug status`: how far a table is, on whatever machines it is being made."""

from __future__ import annotations

import argparse

from benchmarks.commands import reproduce

HELP = "which cells of a table are done, running (where, since when, time left), failed (why) or waiting"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    reproduce.add_table(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="the same for programs, as one JSON object")
    how.add_argument(
        "--watch", action="store_true", help="again every few seconds, until nothing is left to do or Ctrl-C"
    )


def run(options: argparse.Namespace) -> int:
    from benchmarks.launch.status_view import show, watch

    asked = reproduce.request(options)
    return watch(asked) if options.watch else show(asked, options.json)
