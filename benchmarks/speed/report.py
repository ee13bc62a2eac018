"""`python -m benchmarks.speed.report`: reports/speed.md from the measurements beside it, made anew with --measure.

The measurements of a device lie in reports/speed/<device>.json. A device that has none is NOT RUN in the report.
"""

from __future__ import annotations

import argparse
import json
import math
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
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no measurement later")
    parser.add_argument("--reports", type=Path, default=Path("reports"), help="folder of speed.md")
    options = parser.parse_args(arguments)
    folder = options.reports / "speed"
    try:
        if options.measure:
            measure_to(folder / f"{options.measure}.json", options.measure, options.minutes)
        path = options.reports / "speed.md"
        write_text(path, markdown(folder))
    except UserError as error:
        print(f"weightaug: error: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0


def measure_to(path: Path, device: str, minutes: float) -> None:
    """Measure ``device`` and write, after each measurement, all that there is, with what it was made of and on."""
    import torch

    from benchmarks.speed.measure import SIZES, Device
    from benchmarks.speed.tasks import measure

    size = os.environ.get(SIZES_VARIABLE, device)
    if size not in SIZES:
        raise UserError(f"{SIZES_VARIABLE}={size}: use one of {', '.join(SIZES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--measure cuda: no CUDA device on this machine")
    if device == "cpu":
        torch.set_num_threads(1)
    begun = time.monotonic()
    revision, dirty = commit()
    about = {
        "device": device,
        "sizes": size,
        "commit": revision,
        "dirty": dirty,
        "versions": versions(),
        "hardware": hardware(device),
    }

    def save(found: dict[str, Any]) -> None:
        write_json(path, {**about, "minutes": (time.monotonic() - begun) / 60, **found})

    measure(
        Device(device, SIZES[size]), save, lambda text: print(text, file=sys.stderr, flush=True), minutes * 60
    )


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
        devices=DEVICES, found=found, over_sgd=over_sgd, verdict=verdict, epoch_bar=EPOCH_BAR
    )


def over_sgd(row: dict[str, Any], rows: list[dict[str, Any]]) -> float | None:
    """A step's time over that of SGD with the same engine and precision; None where that was not measured."""
    for other in rows:
        same = (other["engine"], other["precision"]) == (row["engine"], row["precision"])
        if same and other["method"] == "SGD":
            return row["over_hand_written"] / other["over_hand_written"]
    return None


def verdict(device: str, size: str, method: str, what: str, ratio: float) -> str:
    """Whether a ratio keeps its bar; empty where there is none."""
    bar = BARS.get((method, what))
    if bar is None or size == "tiny" or (device == "cpu" and method == "DAMP, M = 8"):
        return ""
    return f" (bar {bar:.2f}, {'held' if ratio <= bar else 'missed'})"


if __name__ == "__main__":
    sys.exit(main())
