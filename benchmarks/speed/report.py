"""`python -m benchmarks.speed.report`: reports/speed.md from the measurements beside it, made anew with --measure.

The measurements of a device lie in reports/speed/<device>.json. A device that has none is NOT RUN in the report.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.errors import UserError
from benchmarks.markdown import template
from benchmarks.results.files import write_json, write_text
from benchmarks.results.provenance import commit, hardware, versions

SIZES_VARIABLE = "WEIGHTAUG_SPEED"
DEVICES = {"cpu": "CPU", "cuda": "GPU"}
BARS = {
    ("SGD", "over_hand_written"): 1.03,
    ("DAMP, M = 1", "over_sgd"): 1.10,
    ("DAMP, M = 8", "over_sgd"): 1.50,
    ("SAM, M = 1", "over_sgd"): 2.05,
    ("ASAM, M = 1", "over_sgd"): 2.05,
}
"""Of the whole suite; DAMP with M = 8 on a GPU only, where the bar is 1.5 and then 1.25."""
EPOCH_BAR = 1.0  # seconds on a GPU of the H200's class, then 0.6


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.report", description=__doc__)
    parser.add_argument("--measure", metavar="DEVICE", choices=["cpu", "cuda"], help="measure this one first")
    parser.add_argument("--reports", type=Path, default=Path("reports"), help="folder of speed.md")
    options = parser.parse_args(arguments)
    folder = options.reports / "speed"
    try:
        if options.measure:
            write_json(folder / f"{options.measure}.json", measured(options.measure))
        path = options.reports / "speed.md"
        write_text(path, markdown(folder))
    except UserError as error:
        print(f"weightaug: error: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0


def measured(device: str) -> dict[str, Any]:
    """The measurements of ``device``, with what they were made of and on."""
    import torch

    from benchmarks.speed.measure import SIZES, Device, measure

    size = os.environ.get(SIZES_VARIABLE, device)
    if size not in SIZES:
        raise UserError(f"{SIZES_VARIABLE}={size}: use one of {', '.join(SIZES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--measure cuda: no CUDA device on this machine")
    if device == "cpu":
        torch.set_num_threads(1)
    begun = time.monotonic()
    found = measure(Device(device, SIZES[size]), lambda text: print(text, file=sys.stderr, flush=True))
    revision, dirty = commit()
    return {
        "device": device,
        "sizes": size,
        "commit": revision,
        "dirty": dirty,
        "versions": versions(),
        "hardware": hardware(device),
        "minutes": (time.monotonic() - begun) / 60,
        **found,
    }


def markdown(folder: Path) -> str:
    """The report of the measurements in ``folder``; the same files give the same text."""
    found: dict[str, Any] = {}
    for device in DEVICES:
        path = folder / f"{device}.json"
        if path.is_file():
            try:
                found[device] = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise UserError(f"{path} is no JSON ({error}); measure again, or remove it") from error
    return template("speed", "speed.md.j2").render(
        devices=DEVICES, found=found, verdict=verdict, epoch_bar=EPOCH_BAR
    )


def verdict(device: str, size: str, row: dict[str, Any], what: str) -> str:
    """Whether a ratio keeps its bar; empty where there is none."""
    bar = BARS.get((row["method"], what))
    if bar is None or size == "tiny" or (device == "cpu" and row["method"] == "DAMP, M = 8"):
        return ""
    return f" (bar {bar:.2f}, {'held' if row[what] <= bar else 'missed'})"


if __name__ == "__main__":
    sys.exit(main())
