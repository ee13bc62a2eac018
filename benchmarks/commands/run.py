"""`weightaug run`: one cell."""

from __future__ import annotations

import argparse

from benchmarks.commands import add_overrides

HELP = "train and evaluate one cell"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser, "method=damp method.sigma=0.2 model=resnet_tiny seed=3 device=cpu")


def run(options: argparse.Namespace) -> int:
    from benchmarks.launch import single

    return single.run(options.overrides)
