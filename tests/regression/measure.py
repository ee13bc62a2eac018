"""Measure the references anew: `python -m regression.measure` in `tests`, after a change that is meant to move them.

Bounds: mean over ten seeds plus and minus four standard deviations of that spread (the noise floor), at least four
test images wide.
"""

from __future__ import annotations

import json
from statistics import fmean, stdev

import torch

from benchmarks.results.provenance import commit, hardware, versions
from regression.runs import CASES, REFERENCE, final_errors, first_losses

SEEDS = 10
WIDTH = 4.0
IMAGE = 100 / 540


def main() -> None:
    torch.set_num_threads(1)
    revision, dirty = commit()
    losses = {case: first_losses(case) for case in CASES}
    errors = {}
    for case in CASES:
        by_mode: dict[str, list[float]] = {}
        for seed in range(SEEDS):
            for mode, error in final_errors(case, seed).items():
                by_mode.setdefault(mode, []).append(round(error, 4))
        errors[case] = {mode: {"seeds": values, **bounds(values)} for mode, values in by_mode.items()}
    measured = {
        "command": "python -m regression.measure",
        "commit": revision,
        "dirty": dirty,
        "versions": versions(),
        "hardware": hardware("cpu"),
    }
    REFERENCE.write_text(
        json.dumps({"measured": measured, "losses": losses, "errors": errors}, indent=1) + "\n"
    )


def bounds(values: list[float]) -> dict[str, float]:
    half = max(WIDTH * stdev(values), WIDTH * IMAGE)
    return {
        "low": round(max(0.0, fmean(values) - half), 2),
        "high": round(min(100.0, fmean(values) + half), 2),
    }


if __name__ == "__main__":
    main()
