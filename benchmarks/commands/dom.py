"""`weightaug dom`: what DOM saves, counted and timed, and a search for the best draws."""

from __future__ import annotations

import argparse

from benchmarks.commands import add_overrides

HELP = "what DOM (WAS with shadow weights) saves by network, and the best draws within a budget of FLOPs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--network",
        dest="networks",
        action="append",
        metavar="OVERRIDES",
        help="a network to count and time, e.g. 'model=resnet18_was method.transform=shift' (repeatable; "
        "default: the WAS authors' networks)",
    )
    parser.add_argument(
        "--batches", default="1,128", metavar="SIZES", help="batch sizes to time (default: 1,128)"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds of timing; 0 leaves it out (default: 5)"
    )
    parser.add_argument(
        "--budgets",
        default="0.65,0.75,0.85",
        metavar="SHARES",
        help="what the draws may cost, as shares of the plain network's FLOPs (default: 0.65,0.75,0.85)",
    )
    parser.add_argument("--reports", default="reports", metavar="FOLDER", help="where the report goes")
    add_overrides(
        parser, "model=resnet18_was dataset=cifar10 device=cuda, the cell that is trained and searched"
    )


def run(options: argparse.Namespace) -> int:
    from benchmarks.launch import dom

    return dom.dom(
        dom.DomRequest.parse(
            options.networks,
            options.batches,
            options.rounds,
            options.budgets,
            options.overrides,
            options.reports,
        )
    )
