"""`weightaug wandb-sync`: W&B filled again from cards alone. Doing it twice changes nothing."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.cell import label_of
from benchmarks.errors import UserError, one_line
from benchmarks.launch.report_mirror import mirror_report
from benchmarks.launch.request import Position, Request
from benchmarks.reports.render import write_report
from benchmarks.results.card import Card, DamagedCardError
from benchmarks.results.reading import load_card
from benchmarks.results.store import Store
from benchmarks.results.wandb_log import holds_card, runs_of
from benchmarks.results.wandb_mirror import Mirror, mirror_card
from benchmarks.runtime import Runtime
from benchmarks.terminal import note, warn

SINGLE = "single"
"""The group of cells that no table asked for."""


def sync_store(runtime: Runtime, force: bool) -> int:
    """Send every card of the store. Returns 1 if one could not be sent."""
    store = _store(runtime)
    cards = [_read(path) for path in sorted(store.cards.glob("*.json"))]
    found = [card for card in cards if card is not None]
    if not found:
        raise UserError(
            f"no card in {store.cards}; train cells with `weightaug reproduce TABLE` or name a store"
        )
    return _send(runtime, {card["id"]: (card, _group(card)) for card in found}, force)


def sync_table(request: Request, force: bool) -> int:
    """Send the cards of a table, and its report with tables and plots. Returns 1 if something could not be sent."""
    store = _store(request.runtime)
    cards = request.cards(lambda cell_id, cell: _read(store.cards / f"{cell_id}.json"))
    found = {card["id"]: (card, request.table.name) for card in cards.values() if card}
    if not found:
        raise UserError(
            f"no card of {request.table.name} at scale {request.scale} in {store.cards}; train them with "
            f"`weightaug reproduce {request.table.name} --scale {request.scale}`"
        )
    failed = _send(request.runtime, found, force)
    return max(failed, int(not _send_report(request, cards, force)))


def _store(runtime: Runtime) -> Store:
    if runtime.wandb == "disabled":
        raise UserError("wandb=disabled sends nothing; choose wandb=offline or wandb=online")
    return Store(runtime.store_folder, read_only=True)


def _read(path: Path) -> Card | None:
    try:
        return load_card(path)
    except FileNotFoundError:
        return None
    except DamagedCardError as error:
        warn(f"{path}: damaged card ({one_line(error)}); left out")
        return None


def _group(card: Card) -> str:
    """The table that the cell was trained for, which its command names."""
    words = shlex.split(card["provenance"].get("command", ""))
    named = [words[place + 1] for place, word in enumerate(words[:-1]) if word == "reproduce"]
    return named[0] if named else SINGLE


def _send(runtime: Runtime, cards: Mapping[str, tuple[Card, str]], force: bool) -> int:
    sent = there = 0
    for card, group in cards.values():
        before = runs_of(runtime.store_folder, card["id"])
        if runtime.wandb == "offline" and not force and any(holds_card(run, card) for run in before):
            there += 1
            continue
        name = f"{label_of(card['cell'])} seed {card['cell']['seed']}"
        if mirror_card(Mirror(runtime.wandb, runtime.store_folder, group), card, name):
            sent += 1
            _remove(before if force else [])
    note(f"W&B ({runtime.wandb}): {sent} of {len(cards)} cells sent, {there} were there")
    return int(sent + there < len(cards))


def _send_report(request: Request, cards: Mapping[Position, Card | None], force: bool) -> bool:
    """The report as it would be written now: drawn into a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (request.table, request.scale, request.seeds, cards, request.published())
        path = write_report(*arguments, Path(folder), request.again(cards))
        before, sent = mirror_report(request, cards, path, force)
        _remove(before if force and sent else [])
        return sent


def _remove(runs: list[Path]) -> None:
    """Offline runs in whose place there are new ones."""
    for run in runs:
        shutil.rmtree(run, ignore_errors=True)
