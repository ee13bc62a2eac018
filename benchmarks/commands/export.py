"""`weightaug export`: a trained cell as a folder to hand on."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.commands import add_cell

HELP = "write a trained cell's weights with a model card, and as ONNX"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_cell(parser)
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where to; a new or an empty folder")
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="also ONNX of the model, for WAS of one draw of its shadow weights too; checked with onnxruntime",
    )


def run(options: argparse.Namespace) -> int:
    from benchmarks.export.folder import export
    from benchmarks.export.trained import find
    from benchmarks.terminal import warn

    trained, _ = find([options.cell, *options.overrides])
    files = export(trained, Path(options.out), options.onnx)
    for file in files:
        if file.difference is None:
            print(f"{file.name}: not checked, onnxruntime is not installed (pip install 'weightaug[onnx]')")
            continue
        print(f"{file.name}: onnxruntime's logits differ from PyTorch's by {file.difference:.1e} at most")
        if not file.agrees:
            warn(f"{file.name} differs from the model by more than rounding; don't use it")
    print(f"exported: {options.out}")
    return 0 if all(file.agrees for file in files) else 1
