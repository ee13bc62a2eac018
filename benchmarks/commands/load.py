"""`weightaug load`: a trained cell given back as a model."""

from __future__ import annotations

import argparse

from benchmarks.commands import add_cell

HELP = "load a trained cell's model, say what it is, and check it against its card"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_cell(parser)
    parser.add_argument(
        "--check",
        action="store_true",
        help="measure it on its clean test images again; exit code 1 if it is not what the card says",
    )


def run(options: argparse.Namespace) -> int:
    from benchmarks.export.check import compare
    from benchmarks.export.trained import find

    trained, runtime = find([options.cell, *options.overrides])
    device = runtime.resolve_device()
    model, method = trained.build(device)
    cell, count = trained.cell, sum(parameter.numel() for parameter in model.parameters())
    print(f"cell: {trained.card['id']} ({cell.label})")
    print(f"model: {cell.model.title}, {count:,} parameters, {trained.weights.inputs['classes']} classes")
    print(f"method: {cell.method.name}, inference modes {', '.join(method.modes)}")
    print(f"weights: {trained.path}, SHA-256 {trained.weights.sha256}")
    if not options.check:
        return 0
    compared = compare(trained, method, runtime, device)
    for number in compared:
        verdict = "equal to rounding" if number.equal else f"DIFFERS by {number.now - number.card:+.4g}"
        print(f"{number.mode} clean {number.key}: {number.now:.6g} (card {number.card:.6g}), {verdict}")
    return 0 if all(number.equal for number in compared) else 1
