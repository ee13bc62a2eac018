"""A finished cell, found in the store or in an exported folder, and given back as a model."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import config
from benchmarks.cell import PROTOCOL_VERSION, Cell
from benchmarks.data.dataset import Source
from benchmarks.errors import UserError
from benchmarks.results.card import Card, DamagedCardError
from benchmarks.results.reading import parse_card
from benchmarks.results.store import Store
from benchmarks.results.weights import Weights, load_weights, read
from benchmarks.runtime import Runtime
from benchmarks.terminal import warn
from benchmarks.training.trainer import build
from weightaug.method import Method

CARD, WEIGHTS = "card.json", "model.safetensors"
"""The files of an exported folder that a model is loaded from."""
LISTED = 4


def load(
    cell: str | Path, store: str | Path = Runtime.store, device: str = "cpu"
) -> tuple[nn.Module, Method, Card]:
    """A trained model, its method and its card; needs no data set, and writes nothing.

    The model is in inference mode, and torch's random state on the CPU is left alone. Where the card says
    ``evaluation.batch_norm=reestimated``, its numbers belong to re-estimated statistics, not to the loaded ones.

    Args:
        cell: id of a cell in the store, the start of one, or a folder that ``weightaug export`` wrote.
        store: folder of the card store.
        device: torch's name of where the model goes, or ``auto``.

    Raises:
        UserError: there is no such cell, it has no weights, they are damaged or don't fit.
    """
    trained = _by_name(str(cell), Path(store))
    return (*trained.build(Runtime(device=device).resolve_device()), trained.card)


@dataclass(frozen=True)
class Trained:
    """A finished cell: its card, where that lies, and where its weights do.

    ``asked`` is the cell that a person named by its settings; else it is made from the card.
    """

    card: Card
    place: Path
    path: Path
    asked: Cell | None = None

    @cached_property
    def cell(self) -> Cell:
        if self.asked is not None:
            return self.asked
        try:
            return config.cell_of(self.card["cell"])
        except UserError as error:
            raise UserError(f"{self.place} can't be read as a cell of this version: {error}") from error

    @cached_property
    def weights(self) -> Weights:
        """The weights, if they, the card and the cell belong together."""
        weights, stated = read(self.path), self.card.get("weights")
        if weights.metadata["cell"] != self.card["id"] or (stated and stated["sha256"] != weights.sha256):
            raise UserError(
                f"the weights in {self.path} are not those of {self.place} (their cell is {weights.metadata['cell']}, "
                "their hash another); put the two files that belong together in place"
            )
        version = weights.metadata["protocol_version"]
        if version != str(PROTOCOL_VERSION):
            warn(
                f"cell {self.card['id']} was trained under protocol version {version}, this program has "
                f"{PROTOCOL_VERSION}: its numbers need not repeat"
            )
        elif self.cell.id != self.card["id"] or self.cell.contradiction(self.card["cell"]):
            raise UserError(
                f"{self.place} was changed: the settings in it are not those of its cell; put the original back"
            )
        return weights

    def build(self, device: str) -> tuple[nn.Module, Method]:
        """The model with its weights, and the method as it was after training."""
        source = RecordedSource(self.weights.inputs, self.cell.dataset.arguments)
        with torch.random.fork_rng(devices=[]):
            model, method = build(self.cell, source, device)
        load_weights(model, self.weights)
        method.load_state_dict(self.weights.method)
        return model.eval(), method


class RecordedSource(Source):
    """What a model was built for, as its weights say it: no files of the data set are needed."""

    def __init__(self, inputs: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
        self.num_classes = inputs["classes"]
        self.in_channels, self.image_size = inputs["channels"], inputs["size"]
        super().__init__(corruptions=arguments.get("corruptions"))


def find(arguments: Sequence[str]) -> tuple[Trained, Runtime]:
    """The finished cell that a command line names, by id, start of an id or folder, or by its settings."""
    names = [text for text in arguments if "=" not in text or (Path(text) / CARD).is_file()]
    settings = [text for text in arguments if text not in names]
    cell, runtime = config.load(settings)
    if not names:
        return _by_settings(cell, Store(runtime.store_folder, read_only=True)), runtime
    others = [text for text in settings if text.partition("=")[0] not in Runtime.__dataclass_fields__]
    if len(names) > 1 or others:
        raise UserError(f"name one cell, by its id or by its settings, not {' and '.join([*names, *others])}")
    return _by_name(names[0], runtime.store_folder), runtime


def _by_settings(cell: Cell, store: Store) -> Trained:
    if not store.has(cell.id):
        raise UserError(
            f"cell {cell.id} ({cell.label}) is not finished in the store {store.folder}; train it with `weightaug run` "
            "and the same settings"
        )
    return _trained(store.cards / f"{cell.id}.json", store.weights(cell.id), cell)


def _by_name(name: str, folder: Path) -> Trained:
    if (Path(name) / CARD).is_file():
        return _trained(Path(name) / CARD, Path(name) / WEIGHTS)
    store = Store(folder, read_only=True)
    cell_id = _full_id(name, store)
    return _trained(store.cards / f"{cell_id}.json", store.weights(cell_id))


def _full_id(start: str, store: Store) -> str:
    known = sorted(path.stem for path in store.cards.glob("*.json"))
    found = [cell_id for cell_id in known if cell_id.startswith(start)]
    if len(found) == 1 or start in found:
        return start if start in found else found[0]
    if found:
        some = ", ".join(found[:LISTED]) + (", ..." if len(found) > LISTED else "")
        raise UserError(f"{start!r} is the start of {len(found)} cells ({some}); give more of the id")
    near = difflib.get_close_matches(start, known, n=1, cutoff=0.0)
    guess = f"the nearest of its {len(known)} cells is {near[0]}" if near else "it has no cells"
    raise UserError(
        f"no cell {start!r} in the store {store.folder}; {guess}, and no exported folder is called so"
    )


def _trained(place: Path, weights: Path, asked: Cell | None = None) -> Trained:
    """The card at ``place`` with its weights, or an error that says why there are none."""
    try:
        card = parse_card(place)
    except DamagedCardError as error:
        raise UserError(
            f"the card {place} is damaged ({error}); `weightaug run` trains its cell again"
        ) from error
    if card["status"] == "diverged":
        epoch = card["diverged_at"]["epoch"]
        raise UserError(f"cell {card['id']} diverged in epoch {epoch}: it has no weights")
    if not weights.is_file():
        why = "it was run with weights=drop or by a version that kept none"
        if card.get("weights"):
            why = "which the card promises; put the file back"
        raise UserError(
            f"cell {card['id']} has no weights in {weights}: {why}; to train it once more move {place} away and run "
            "the cell again with weights=keep"
        )
    return Trained(card, place, weights, asked)
