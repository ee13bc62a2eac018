"""Measure the references anew: `python -m regression.measure` in `tests`, after a change that is meant to move them.

Cells that the store has are not run again; name another store as argument, or remove it, to begin anew.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch

from benchmarks.reports.render import card_text
from benchmarks.results.files import write_text
from benchmarks.results.provenance import commit, hardware, versions
from benchmarks.results.store import Store
from regression.runs import CARDS, CASES, REFERENCE, cell, first_losses, train

SEEDS = 10
RUNS = Path(__file__).resolve().parents[2] / "runs" / "regression"


def main() -> None:
    torch.set_num_threads(1)
    store = Store(Path(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
    revision, dirty = commit()
    measured = {
        "command": "python -m regression.measure",
        "commit": revision,
        "dirty": dirty,
        "versions": versions(),
        "hardware": hardware("cpu"),
    }
    wanted = [(case, seed) for seed in range(SEEDS) for case in CASES]
    for case, seed in wanted:
        train(case, seed, store)
    losses = {case: first_losses(case) for case in CASES}
    shutil.rmtree(CARDS, ignore_errors=True)
    for case, seed in wanted:
        card = store.read(cell(case, seed).id)
        assert card is not None
        write_text(CARDS / f"{card['id']}.json", card_text(card))
    REFERENCE.write_text(json.dumps({"measured": measured, "losses": losses}, indent=1) + "\n")


if __name__ == "__main__":
    main()
