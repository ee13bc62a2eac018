"""Everything that is measured on a trained model, in each of the method's inference modes.

Clean, corrupted and attacked test images, and sets of other images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from benchmarks.cell import Cell
from benchmarks.data.corrupted import PublishedCorruptions
from benchmarks.data.corruptions import SEVERITIES, Table, corrupt, without_missing
from benchmarks.data.dataset import DataSet, Images, ImageSet, Source
from benchmarks.data.shifted import ShiftedImages
from benchmarks.errors import UserError
from benchmarks.evaluation.attacks import attacks
from benchmarks.evaluation.batch_norm import batch_statistics, reestimate
from benchmarks.evaluation.in_parts import CorruptedInParts, InParts
from benchmarks.evaluation.metrics import per_accepted_example, per_example, summarise
from benchmarks.memory import is_out_of_memory
from weightaug.method import Method
from weightaug.random import derive_seed

REESTIMATION_BATCHES = 16
KEPT_SHARE = 0.5
"""Corrupted images are made once and kept on the device, up to this share of the memory that is free there; those that
there is no room for are made batch by batch. The numbers are the same."""

Corrupted = Callable[[Tensor, Tensor], Tensor]
"""Maps clean test images uint8 [n, C, H, W] and their places in the test set (int64 [n], CPU) to corrupted ones."""


@dataclass(frozen=True)
class EvaluationImages:
    """The test images, clean and with every corruption of every severity, and the sets of other images."""

    clean: ImageSet
    corrupted: dict[tuple[str, int], Corrupted]
    origins: dict[str, str]  # type of corruption -> generated or published
    shifted: Mapping[str, ShiftedImages] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        source: Source,
        data: DataSet,
        corruptions: bool = True,
        published: PublishedCorruptions | None = None,
        shifted: Mapping[str, ShiftedImages] | None = None,
    ) -> EvaluationImages:
        """With ``corruptions``, the ``published`` ones, or else the source's, generated."""
        test = data.test
        corrupted: dict[tuple[str, int], Corrupted] = {}
        if corruptions and published is not None:
            published.check()
            corrupted = {key: _published(published, *key) for key in published}
        elif corruptions:
            table, parts = without_missing(source.corruptions), CorruptedInParts()
            corrupted = {
                (name, severity): _generated(name, severity, table, parts)
                for name in table
                for severity in SEVERITIES
            }
        origins = {name: "generated" if published is None else "published" for name, _ in corrupted}
        # What is published is mapped into memory, or streamed: on a CPU a copy would be no faster.
        if isinstance(test, Images) and (published is None or test.images.is_cuda):
            corrupted = _keep(corrupted, test.images)
        return cls(test, corrupted, origins, shifted or {})

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The clean images once: (uint8 [n, C, H, W], labels [n], places [n])."""
        order = torch.arange(len(self.clean))
        places = order.split(size)
        for (images, labels), of_batch in zip(self.clean.read(order, size), places, strict=True):
            yield images, labels, of_batch


def _generated(name: str, severity: int, table: Table, parts: CorruptedInParts) -> Corrupted:
    return lambda images, places: parts(
        lambda some, there: corrupt(some, name, severity, table, there), images, places
    )


def _published(source: PublishedCorruptions, name: str, severity: int) -> Corrupted:
    return lambda images, places: source.read(name, severity, places).to(images.device)


def _keep(corrupted: dict[tuple[str, int], Corrupted], images: Tensor) -> dict[tuple[str, int], Corrupted]:
    """As many of the sets as there is room for are made and kept; others fill the memory too, so each asks anew."""
    kept, everything = dict(corrupted), torch.arange(len(images))
    least = (1 - KEPT_SHARE) * free_memory(images.device)
    for key, made in corrupted.items():
        if free_memory(images.device) - images.nbytes < least:
            break
        kept[key] = _kept(made(images, everything))
    return kept


def free_memory(device: torch.device) -> int:
    """The bytes that can still be had on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _kept(whole: Tensor) -> Corrupted:
    return lambda images, places: whole[places.to(whole.device)]


def evaluate(cell: Cell, method: Method | InParts, data: DataSet, sets: EvaluationImages) -> dict[str, Any]:
    """The ``metrics`` of a card: for each mode the clean, corrupted, attacked and shifted measurements, raw.

    Of a method ``InParts`` the batches may be too large for the memory.
    """
    method.model.eval()
    measured = {}
    for mode in method.modes:
        with _batch_norm(cell, method, mode, data):
            measured[mode] = _passive(cell, method, mode, data, sets)
            if attacked := _attacked(cell, method, mode, data, sets):
                measured[mode]["attacks"] = attacked
            if sets.shifted:  # last, so that what a method draws for the others is the same without them
                measured[mode]["shifted"] = {
                    name: _shifted(cell, method, mode, data, found) for name, found in sets.shifted.items()
                }
    return measured


def _passive(
    cell: Cell, method: Method | InParts, mode: str, data: DataSet, sets: EvaluationImages
) -> dict[str, Any]:
    """Clean and all corrupted images in one pass over the test set; of each image five numbers are kept."""
    examples: dict[tuple[str, int], list[Tensor]] = {}
    for images, labels, places in sets.batches(cell.evaluation.batch_size):
        for key, made in ((("clean", 0), None), *sets.corrupted.items()):
            x = data.normalise(images if made is None else made(images, places))
            examples.setdefault(key, []).append(per_example(method.predict(x, mode).float(), labels))
    measured = {key: summarise(torch.cat(of, 1), cell.evaluation.ece_bins) for key, of in examples.items()}
    corrupted: dict[str, dict[str, list[float]]] = {}
    for name, severity in sets.corrupted:
        for what, value in measured[name, severity].items():
            if what != "n":
                corrupted.setdefault(name, {}).setdefault(what, []).append(value)
    return {"clean": measured["clean", 0], "corrupted": corrupted}


def _attacked(
    cell: Cell, method: Method | InParts, mode: str, data: DataSet, sets: EvaluationImages
) -> dict[str, Any]:
    """The measurements under each attack that the cell asks for, with the attack's parameters."""

    def logits(pixels: Tensor) -> Tensor:
        return method.logits(data.standardise(pixels), mode)

    measured = {}
    for name, (attack, parameters) in attacks(cell.evaluation).items():
        examples = []
        for batch, (images, labels, _) in enumerate(sets.batches(cell.evaluation.batch_size)):
            seed = derive_seed(cell.seed, name, batch)
            attacked = attack(logits, images.float() / 255, labels, seed)
            predicted = method.predict(data.standardise(attacked), mode)
            examples.append(per_example(predicted.float(), labels))
        measured[name] = {**parameters, **summarise(torch.cat(examples, 1), cell.evaluation.ece_bins)}
    return measured


def _shifted(
    cell: Cell, method: Method | InParts, mode: str, data: DataSet, found: ShiftedImages
) -> dict[str, Any]:
    """One set of other images in one pass."""
    order, size = torch.arange(len(found.images)), cell.evaluation.batch_size
    examples = []
    for (images, _), accepted in zip(found.images.read(order, size), found.accepted.split(size), strict=True):
        predicted = method.predict(data.normalise(images), mode)
        examples.append(per_accepted_example(predicted.float(), accepted, found.outputs))
    return summarise(torch.cat(examples, 1), cell.evaluation.ece_bins)


def _batch_norm(
    cell: Cell, method: Method | InParts, mode: str, data: DataSet
) -> AbstractContextManager[Any]:
    model: nn.Module = method.model
    if cell.evaluation.batch_norm == "reestimated":
        images = data.train.read(_training_places(cell, data), cell.recipe.batch_size)
        batches = (data.normalise(x) for x, _ in images)
        whole = method.method if isinstance(method, InParts) else method
        return reestimate(model, lambda x: _whole(whole, x, mode), batches)
    if cell.evaluation.batch_norm == "batch":
        return batch_statistics(model)
    return nullcontext()


def _whole(method: Method, x: Tensor, mode: str) -> None:
    """A batch of training images, whose statistics are wanted: it can't be divided."""
    try:
        method.predict(x, mode)
        return
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    raise UserError(
        f"out of memory in re-estimating BatchNorm on {len(x)} images at once, which training had room for; free the "
        "device of other work (workers=1) or use device=cpu, for the same cell; another: a lower recipe.batch_size"
    )


def _training_places(cell: Cell, data: DataSet) -> Tensor:
    """Some training images, evenly spaced, as a set may be sorted by class."""
    count = min(REESTIMATION_BATCHES * cell.recipe.batch_size, len(data.train))
    return torch.arange(count) * (len(data.train) // count)
