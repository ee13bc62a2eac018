"""`weightaug cost`: what a network and a training step cost."""

from __future__ import annotations

import argparse

from benchmarks.commands import add_overrides
from benchmarks.errors import UserError

HELP = "parameters, multiply-adds and FLOPs of a model, and the passes of a method's training step"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print everything measured as JSON")
    parser.add_argument("--all", action="store_true", help="a Markdown page of all registered models")
    parser.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="images in the training step's mini-batch; default: 8, or one a sub-batch",
    )
    add_overrides(parser, "model=resnet18_was method=was dataset=cifar10")


def run(options: argparse.Namespace) -> int:
    if options.all and options.overrides:
        raise UserError(f"--all takes no setting; leave out {options.overrides[0]!r} or --all")
    import json

    from benchmarks.cost.network import measure, measure_all
    from benchmarks.cost.network_text import models_page, network_text, percent
    from benchmarks.terminal import warn

    if options.batch is not None and (
        options.all or not any(text.startswith("method=") for text in options.overrides)
    ):
        raise UserError("--batch is the size of a method's training step: name the method too (method=...)")
    costs = measure_all() if options.all else [measure(options.overrides, options.batch)]
    if options.json:
        content = [cost.as_dict() for cost in costs]
        print(json.dumps(content if options.all else content[0], indent=1))
    else:
        print(models_page(costs) if options.all else network_text(costs[0]), end="" if options.all else "\n")
    apart = [cost for cost in costs if not cost.forward.agree()]
    for cost in apart:
        difference, allowed = cost.forward.relative_difference, cost.forward.tolerance
        modules = ", ".join(cost.forward.partings) or "no single module"
        warn(
            f"{cost.model}: the counters differ by {percent(difference)}, more than {allowed:.0%}, in {modules}"
        )
    return 1 if apart else 0
