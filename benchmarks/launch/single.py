"""`weightaug run`: one cell, here and now: in this process, one for each device, or those that torchrun started."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks import processor
from benchmarks.cell import Cell
from benchmarks.config import load
from benchmarks.errors import UserError
from benchmarks.reports.measures import measure, unmeasured_types
from benchmarks.results.card import Card
from benchmarks.results.code import code
from benchmarks.results.heartbeat import Heartbeat
from benchmarks.results.provenance import command_line
from benchmarks.results.store import Store
from benchmarks.runtime import LOCAL, Runtime, torchrun_processes
from benchmarks.terminal import note

if TYPE_CHECKING:
    from benchmarks.training.processes import Processes


def run(overrides: Sequence[str]) -> int:
    """Run one cell unless it is finished already; print its measurements and where the card lies."""
    cell, runtime = load(overrides)
    if runtime.launcher.target != LOCAL:
        raise UserError(
            f"launcher={runtime.launcher.name}: `weightaug run` trains here; use `weightaug reproduce`"
        )
    device = runtime.resolve_device()
    store = Store.of(runtime)
    if torchrun_processes() == 1 and (card := store.read(cell.id, cell)):
        note(f"{cell.label}: finished before, nothing to do")
        return _tell(card, store)
    from benchmarks.launch.devices import torchrun

    with torchrun(device) as (processes, own):
        trained = _trained(cell, runtime, own, store, processes)
    return _tell(trained, store) if trained else 0


def _trained(cell: Cell, runtime: Runtime, device: str, store: Store, processes: Processes) -> Card | None:
    """The cell's card; None in all processes but the first."""
    import torch

    from benchmarks.launch.devices import Reporter, run_on_devices
    from benchmarks.launch.run_cell import preflight, run_cell

    codes = processes.gather(code().name)
    claimed: list[Heartbeat] = []
    with ExitStack() as stack:

        def claim() -> bool:
            """Whether there is something to do, after it has been claimed."""
            if runtime.mixed_versions == "refuse" and len(set(codes)) > 1:
                raise UserError(
                    f"the processes run different code: {'; '.join(sorted(set(codes)))}; run the same everywhere, or "
                    "allow it (mixed_versions=allow)"
                )
            if store.read(cell.id, cell):
                return False
            if problems := preflight(cell, runtime):
                raise UserError("; ".join(problems))
            if busy := store.at_work([cell.id]):
                raise UserError(f"{busy}, which is this one; wait for it or end it")
            heartbeat = stack.enter_context(store.claim(cell.id))
            if heartbeat is None:
                raise UserError(f"cell {cell.id} has just been taken by another process; try again")
            claimed.append(heartbeat)
            return store.read(cell.id, cell) is None

        try:
            todo = processes.share(claim)
        except UserError:
            if processes.first:
                raise
            sys.exit(2)  # the first one tells why
        begun = time.monotonic()
        if todo:
            processor.set_up(runtime.threads or torch.get_num_threads())
            told = "single", command_line()
            if processes.count == 1:
                run_on_devices(cell, runtime, device, store, claimed[0], *told)
            else:
                reporting = claimed[0] if claimed else Reporter()
                run_cell(cell, runtime, device, store, reporting, *told, processes)
        if not processes.first:
            return None
        card = store.read(cell.id, cell)
        starved = _starved(card) if card else ""
        took = f"done in {time.monotonic() - begun:.1f} s on {device}{starved}"
        note(f"{cell.label}: {took if todo else 'finished before, nothing to do'}")
        return card


def _tell(card: Card, store: Store) -> int:
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
        print(f"weights: {store.weights(card['id'])}")
    print(f"card: {store.cards / card['id']}.json")
    return 0


def _starved(card: Card) -> str:
    """How long the training waited for images, where they came from disk."""
    share = card["cost"].get("starvation")
    return f", {share:.1%} of the training time waiting for images" if share else ""
