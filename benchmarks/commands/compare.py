"""`weightaug compare`: what changed between two stores, commits or machines."""

from __future__ import annotations

import argparse

HELP = (
    "what changed beyond noise between two stores, folders of cards or commits; exit code 1 on a regression"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    side = "a card store, a folder of cards, or git:REVISION[:PATH] with committed ones (PATH: reports)"
    parser.add_argument("a", metavar="A", help=f"before: {side}")
    parser.add_argument("b", metavar="B", help="after: likewise")
    parser.add_argument("--out", metavar="FILE", help="write the Markdown into a file too")


def run(options: argparse.Namespace) -> int:
    from pathlib import Path

    from benchmarks.compare.compare import compare
    from benchmarks.compare.sides import read_side
    from benchmarks.compare.text import markdown
    from benchmarks.errors import UserError
    from benchmarks.results.files import write_text
    from benchmarks.terminal import warn

    result = compare(read_side(options.a), read_side(options.b))
    if not result.comparisons and not result.divergences:
        raise UserError(
            f"{options.a} and {options.b} have no cells in common; compare cards of the same cells"
        )
    for side in (result.a, result.b):
        for problem in side.left_out:
            warn(f"left out: {problem}")
    if result.only_a:
        warn(f"{options.b} lacks cells that {options.a} has: {'; '.join(result.only_a)}")
    text = markdown(result)
    print(text, end="")
    if options.out:
        write_text(Path(options.out), text)
    return 1 if result.regressions else 0
