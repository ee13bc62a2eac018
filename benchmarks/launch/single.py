"""`weightaug run`: one cell, here and now: in this process, one for each device, or those that torchrun started."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks import processor
from benchmarks.cell import Cell
from benchmarks.config import load
from benchmarks.errors import UserError
from benchmarks.launch.requirements import missing_data, source_of
from benchmarks.reports.measures import measure, unmeasured_types
from benchmarks.results.card import Card
from benchmarks.results.code import code
from benchmarks.results.heartbeat import Heartbeat
from benchmarks.results.provenance import command_line
from benchmarks.results.reading import read_card
from benchmarks.results.store import Store
from benchmarks.results.unseen import Unseen
from benchmarks.runtime import LOCAL, Runtime
from benchmarks.terminal import note

if TYPE_CHECKING:
    from benchmarks.training.processes import Processes


def run(overrides: Sequence[str]) -> int:
    """Run one cell unless it is finished already; print its measurements and where the card lies.

    All is looked at before anything is made. Of several processes the first alone reads and writes the store.
    """
    from benchmarks.launch.devices import torchrun

    with torchrun() as processes:
        cell, runtime = processes.agree(lambda: _asked(overrides))
        card = _finished(cell, runtime) if processes.first else None
        if processes.share(lambda: card is None):
            device = processes.agree(lambda: _ready(cell, runtime, processes.first))
            card = _trained(cell, runtime, device, processes)
        elif processes.first:
            note(f"{cell.label}: finished before, nothing to do")
    return _tell(card, runtime) if card else 0


def _asked(overrides: Sequence[str]) -> tuple[Cell, Runtime]:
    cell, runtime = load(overrides)
    if runtime.launcher.target != LOCAL:
        raise UserError(
            f"launcher={runtime.launcher.name}: `weightaug run` trains here; use `weightaug reproduce`"
        )
    return cell, runtime


def _finished(cell: Cell, runtime: Runtime) -> Card | None:
    return read_card(Unseen(runtime.store_folder).card_path(cell.id), cell)


def _ready(cell: Cell, runtime: Runtime, first: bool) -> str:
    """The first device of this machine, when it has all that the training needs.

    Args:
        first: of several processes; it looks at the settings, and the others whether the data is there, too.
    """
    from benchmarks.launch.run_cell import preflight

    device = runtime.resolve_device()
    if first:
        problems = preflight(cell, runtime)
    else:
        problems = [] if runtime.download else missing_data(cell, source_of(cell, runtime), runtime)
    if problems:
        raise UserError("; ".join(problems))
    return device


def _trained(cell: Cell, runtime: Runtime, device: str, processes: Processes) -> Card | None:
    """The cell's card; None in all processes but the first."""
    import torch

    from benchmarks.launch.devices import Reporter, device_of, run_on_devices
    from benchmarks.launch.run_cell import run_cell

    codes = processes.gather(code().record())
    kinds = set(processes.gather(device.partition(":")[0]))
    claimed: list[tuple[Store, Heartbeat]] = []  # in the first process alone
    with ExitStack() as stack:

        def claim() -> None:
            """Take the cell, unless somebody has finished it meanwhile."""
            if not processes.first:
                return
            others = [found for found in codes if code().differs(found)]
            if runtime.mixed_versions == "refuse" and others:
                told = sorted({str(found["name"]) for found in codes})
                told += sorted(
                    {f"plug-in {name}" for found in others for name in code().other_plugins(found)}
                )
                raise UserError(
                    f"the processes run different code: {'; '.join(told)}; run the same everywhere, or allow it "
                    "(mixed_versions=allow)"
                )
            if len(kinds) > 1:  # they would wait for each other in different groups
                raise UserError(
                    "some of the processes have a GPU and some have none; say device=cpu for all of them"
                )
            store = Store.of(runtime)
            if busy := store.at_work([cell.id]):
                raise UserError(f"{busy}, which is this one; wait for it or end it")
            heartbeat = stack.enter_context(store.claim(cell.id))
            if heartbeat is not None:
                claimed.append((store, heartbeat))
            elif not store.has(cell.id):
                raise UserError(f"cell {cell.id} has just been taken by another process; try again")

        processes.agree(claim)
        todo = processes.share(lambda: bool(claimed))
        begun = time.monotonic()
        own = device if processes.count == 1 else device_of(device, int(os.environ.get("LOCAL_RANK", 0)))
        if todo:
            processor.set_up(runtime.threads or torch.get_num_threads())
            told = "single", command_line()
            if processes.count == 1:
                run_on_devices(cell, runtime, own, *claimed[0], *told)
            else:
                kept, reporting = claimed[0] if claimed else (Unseen(runtime.store_folder), Reporter())
                run_cell(cell, runtime, own, kept, reporting, *told, processes.on(own))
        if not processes.first:
            return None
        card = _finished(cell, runtime)
        starved = _starved(card) if card else ""
        took = f"done in {time.monotonic() - begun:.1f} s on {own}{starved}"
        note(f"{cell.label}: {took if todo else 'finished before, nothing to do'}")
        return card


def _tell(card: Card, runtime: Runtime) -> int:
    store = Unseen(runtime.store_folder)
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
    print(f"card: {store.card_path(card['id'])}")
    return 0


def _starved(card: Card) -> str:
    """How long the training waited for images, where they came from disk."""
    share = card["cost"].get("starvation")
    return f", {share:.1%} of the training time waiting for images" if share else ""
