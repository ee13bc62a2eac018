"""`weightaug run`: one cell, here and now, in this process."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from benchmarks import processor
from benchmarks.config import load
from benchmarks.errors import UserError
from benchmarks.reports.measures import measure, unmeasured_types
from benchmarks.results.card import Card
from benchmarks.results.provenance import command_line
from benchmarks.results.store import Store
from benchmarks.terminal import note


def run(overrides: Sequence[str]) -> int:
    """Run one cell unless it is finished already; print its measurements and where the card lies."""
    cell, runtime = load(overrides)
    device = runtime.resolve_device()
    store = Store(runtime.store_folder)
    card = store.read(cell.id, cell)
    if card is None:
        import torch

        from benchmarks.launch.run_cell import preflight, run_cell

        problems = preflight(cell, runtime)
        if problems:
            raise UserError("; ".join(problems))
        processor.set_up(runtime.threads or torch.get_num_threads())
        with store.claim(cell.id) as heartbeat:
            if heartbeat is None:
                other = store.heartbeat(cell.id)
                raise UserError(
                    f"cell {cell.id} is being run by process {other.get('pid', '?')}; wait for it or end it"
                )
            begun = time.monotonic()
            card = store.read(cell.id, cell) or run_cell(
                cell, runtime, device, store, heartbeat, "single", command_line()
            )
            note(f"{cell.label}: done in {time.monotonic() - begun:.1f} s on {device}{_starved(card)}")
    else:
        note(f"{cell.label}: finished before, nothing to do")
    for mode, metrics in (card["metrics"] or {}).items():
        named = {"corrupted error": measure(card, "corrupted.error", mode)}
        for group in ("attacks", "shifted"):
            named |= {f"{name} error": values["error"] for name, values in metrics.get(group, {}).items()}
        named["official (training mode, best epoch on test)"] = measure(card, "official.error", mode)
        further = [f", {name} {error:.2f} %" for name, error in named.items() if error is not None]
        if lacking := unmeasured_types(card, mode):
            further.append(f"; no corrupted error, as {', '.join(lacking)} could not be made (see the card)")
        print(f"{mode}: clean error {metrics['clean']['error']:.2f} %{''.join(further)}")
    if card["diverged_at"]:
        print(f"diverged in epoch {card['diverged_at']['epoch']}", file=sys.stdout)
    if card.get("weights"):
        print(f"weights: {store.weights(cell.id)}")
    print(f"card: {store.cards / cell.id}.json")
    return 0


def _starved(card: Card) -> str:
    """How long the training waited for images, where they came from disk."""
    share = card["cost"].get("starvation")
    return f", {share:.1%} of the training time waiting for images" if share else ""
