"""`weightaug run`: one cell."""

from __future__ import annotations

import argparse
import os

from benchmarks.commands import add_overrides

HELP = "train and evaluate one cell"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser, "method=damp method.sigma=0.2 model=resnet_tiny seed=3 device=cpu")


def run(options: argparse.Namespace) -> int:
    # DistributedDataParallel warns of what we chose for its safety; torch reads this when it is imported.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from benchmarks.launch import single

    return single.run(options.overrides)
