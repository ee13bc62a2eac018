"""`python -m benchmarks.simulation.report`: reports/store.md from what was simulated; --cells simulates anew.

What came of a simulation lies in reports/store/<cells>.json. The same code and seed give the same numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.markdown import template
from benchmarks.results.files import write_json, write_text
from benchmarks.results.provenance import commit
from benchmarks.simulation import table
from benchmarks.simulation.table import Scenario, Simulation


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation.report", description=__doc__)
    parser.add_argument("--cells", type=int, nargs="*", default=[], help="sizes of tables to simulate first")
    parser.add_argument("--workers", type=int, default=Scenario.workers)
    parser.add_argument("--seed", type=int, default=Scenario.seed)
    parser.add_argument("--reports", type=Path, default=Path("reports"), help="folder of store.md")
    options = parser.parse_args(arguments)
    folder = options.reports / "store"
    for cells in options.cells:
        print(f"simulating {options.workers} workers on {cells} cells", file=sys.stderr, flush=True)
        asked = Scenario(cells=cells, workers=options.workers, seed=options.seed)
        revision, dirty = commit()
        write_json(
            folder / f"{cells}.json",
            {"asked": asdict(asked), "came": Simulation(asked)(), "commit": revision, "dirty": dirty},
        )
    path = options.reports / "store.md"
    write_text(path, markdown(folder))
    print(path)
    return 0


def markdown(folder: Path) -> str:
    """The report on the simulations in ``folder``; the same files give the same text."""
    found: list[dict[str, Any]] = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))
    ]
    found.sort(key=lambda each: each["asked"]["cells"])
    return template("simulation", "store.md.j2").render(found=found, constants=table)


if __name__ == "__main__":
    sys.exit(main())
