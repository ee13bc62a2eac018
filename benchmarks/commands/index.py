"""`weightaug index`: the list of all reports."""

from __future__ import annotations

import argparse

HELP = "write the README.md that lists all reports and what they found"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reports", default="reports", metavar="FOLDER", help="where the reports are")


def run(options: argparse.Namespace) -> int:
    from pathlib import Path

    from benchmarks.reports.index import write_index

    print(f"index: {write_index(Path(options.reports))}")
    return 0
