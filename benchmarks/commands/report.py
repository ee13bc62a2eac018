"""`weightaug report`: a table's report again, from cards alone."""

from __future__ import annotations

import argparse

from benchmarks.commands import reproduce

HELP = "write a table's report from the cards that there are, without training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    reproduce.add_table(parser)
    parser.add_argument("--cards", metavar="FOLDER", help="folder of cards to use instead of the store's")


def run(options: argparse.Namespace) -> int:
    from benchmarks.launch.reproduce import report

    return report(reproduce.request(options), options.cards)
