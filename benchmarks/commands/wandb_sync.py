"""`weightaug wandb-sync`: W&B filled again from the cards."""

from __future__ import annotations

import argparse

from benchmarks.commands import reproduce

HELP = "fill W&B again from the cards in the store: all of them, or a table's with its report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    reproduce.add_table(parser, "?")
    parser.add_argument("--force", action="store_true", help="send again what offline runs hold already")


def run(options: argparse.Namespace) -> int:
    from benchmarks.launch.wandb_sync import sync_store, sync_table

    if options.table and "=" in options.table:  # a setting in the place of the table, which may be left out
        options.overrides.insert(0, options.table)
        options.table = None
    if options.table:
        return sync_table(reproduce.request(options), options.force)
    from benchmarks.config import load

    return sync_store(load(options.overrides)[1], options.force)
