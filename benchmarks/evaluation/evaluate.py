"""Everything that is measured on a trained model, in each of the method's inference modes.

Clean, corrupted and attacked test images, and sets of other images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from benchmarks.cell import Cell
from benchmarks.data.corrupted import PublishedCorruptions
from benchmarks.data.corruptions import SEVERITIES, ParameterTable, corrupt, without_missing
from benchmarks.data.dataset import DataSet, Images, ImageSet, Source
from benchmarks.data.shifted import ShiftedImages
from benchmarks.errors import UserError
from benchmarks.evaluation.attacks import attacks, predictions
from benchmarks.evaluation.batch_norm import batch_statistics, reestimate
from benchmarks.evaluation.in_parts import CorruptedInParts, InParts
from benchmarks.evaluation.metrics import per_accepted_example, per_example, summarise
from benchmarks.evaluation.own_batches import EVERYTHING, OwnBatches
from benchmarks.memory import is_out_of_memory
from benchmarks.training.processes import ALONE, Processes
from weightaug.method import Method
from weightaug.random import derive_seed
from weightaug.transfer import send

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
        own: OwnBatches = EVERYTHING,
    ) -> EvaluationImages:
        """With ``corruptions``, the ``published`` ones, or else the source's, generated.

        Args:
            own: of what of the test images corrupted ones are made and kept.
        """
        test = data.test
        corrupted: dict[tuple[str, int], Corrupted] = {}
        if corruptions and published is not None:
            own.processes.share(published.check)  # one process writes down what it has found
            corrupted = {key: _published(published, *key) for key in published}
        elif corruptions:
            table = own.processes.share(lambda: without_missing(source.corruptions))
            parts = CorruptedInParts()
            corrupted = {
                (name, severity): _generated(name, severity, table, parts)
                for name in table
                for severity in SEVERITIES
            }
        origins = {name: "generated" if published is None else "published" for name, _ in corrupted}
        # What is published is mapped into memory, or streamed: on a CPU a copy would be no faster.
        if isinstance(test, Images) and (published is None or test.images.is_cuda):
            corrupted = _keep(corrupted, test.images, own.places(len(test)))
        return cls(test, corrupted, origins, shifted or {})


def _generated(name: str, severity: int, table: ParameterTable, parts: CorruptedInParts) -> Corrupted:
    return lambda images, places: parts(
        lambda some, there: corrupt(some, name, severity, table, there), images, places
    )


def _published(source: PublishedCorruptions, name: str, severity: int) -> Corrupted:
    return lambda images, places: send(source.read(name, severity, places), images.device)


def _keep(
    corrupted: dict[tuple[str, int], Corrupted], images: Tensor, places: Tensor
) -> dict[tuple[str, int], Corrupted]:
    """As many of the sets as there is room for are made and kept; others fill the memory too, so each asks anew.

    Args:
        places: those of all test ``images`` that will be asked for, neighbours.
    """
    kept = dict(corrupted)
    if not len(places):
        return kept
    images, first = images[places[0] : places[-1] + 1], int(places[0])
    least = (1 - KEPT_SHARE) * free_memory(images.device)
    for key, made in corrupted.items():
        if free_memory(images.device) - images.nbytes < least:
            break
        kept[key] = _kept(made(images, places), first)
    return kept


def free_memory(device: torch.device) -> int:
    """The bytes that can still be had on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _kept(made: Tensor, first: int) -> Corrupted:
    return lambda images, places: made[send(places - first, made.device)]


def evaluate(
    cell: Cell,
    method: Method | InParts,
    data: DataSet,
    sets: EvaluationImages,
    processes: Processes = ALONE,
) -> dict[str, Any]:
    """The ``metrics`` of a card: for each mode the clean, corrupted, attacked and shifted measurements, raw.

    Of a method ``InParts`` the batches may be too large for the memory.

    Args:
        processes: those that call this together, with the same model; the numbers are those of one, for all of them.
    """
    method.model.eval()
    own = OwnBatches(processes, cell.evaluation.batch_size)
    measured = {}
    for mode in method.modes:
        with _batch_norm(cell, method, mode, data):
            measured[mode] = _passive(cell, method, mode, data, sets, own)
            if attacked := _attacked(cell, method, mode, data, sets, own):
                measured[mode]["attacks"] = attacked
            if sets.shifted:  # last, so that what a method draws for the others is the same without them
                measured[mode]["shifted"] = {
                    name: _shifted(cell, method, mode, data, found, own)
                    for name, found in sets.shifted.items()
                }
    return measured


def _passive(
    cell: Cell, method: Method | InParts, mode: str, data: DataSet, sets: EvaluationImages, own: OwnBatches
) -> dict[str, Any]:
    """Clean and all corrupted images in one pass over the test set; of each image five numbers are kept."""
    inputs: dict[tuple[str, int], Corrupted | None] = {("clean", 0): None, **sets.corrupted}
    examples: dict[tuple[str, int], list[Tensor]] = {key: [] for key in inputs}
    for _, images, labels, places in own.batches(sets.clean, _skip(method, mode, len(inputs))):
        for key, made in inputs.items():
            x = data.normalise(images if made is None else made(images, places))
            examples[key].append(per_example(method.predict(x, mode).float(), labels))
    measured = {
        key: summarise(own.whole(of, sets.clean.labels.device), cell.evaluation.ece_bins)
        for key, of in examples.items()
    }
    corrupted: dict[str, dict[str, list[float]]] = {}
    for name, severity in sets.corrupted:
        for what, value in measured[name, severity].items():
            if what != "n":
                corrupted.setdefault(name, {}).setdefault(what, []).append(value)
    return {"clean": measured["clean", 0], "corrupted": corrupted}


def _attacked(
    cell: Cell, method: Method | InParts, mode: str, data: DataSet, sets: EvaluationImages, own: OwnBatches
) -> dict[str, Any]:
    """The measurements under each attack that the cell asks for, with the attack's parameters."""

    def logits(pixels: Tensor) -> Tensor:
        return method.logits(data.standardise(pixels), mode)

    measured = {}
    for name, (attack, parameters) in attacks(cell.evaluation).items():
        calls = predictions(name, parameters)
        # Where the number of draws is not known, those of a batch depend on all batches before.
        together = calls is not None or mode not in _whole(method).drawing_modes
        chosen = own if together else OwnBatches(size=own.size)
        examples = []
        skip = _skip(method, mode, (calls or 0) + 1)
        for batch, images, labels, _ in chosen.batches(sets.clean, skip):
            seed = derive_seed(cell.seed, name, batch)
            attacked = attack(logits, images.float() / 255, labels, seed)
            predicted = method.predict(data.standardise(attacked), mode)
            examples.append(per_example(predicted.float(), labels))
        whole = chosen.whole(examples, sets.clean.labels.device)
        measured[name] = {**parameters, **summarise(whole, cell.evaluation.ece_bins)}
    return measured


def _shifted(
    cell: Cell, method: Method | InParts, mode: str, data: DataSet, found: ShiftedImages, own: OwnBatches
) -> dict[str, Any]:
    """One set of other images in one pass."""
    examples = []
    for _, images, _, places in own.batches(found.images, _skip(method, mode, 1)):
        predicted = method.predict(data.normalise(images), mode)
        accepted = found.accepted[send(places, found.accepted.device)]
        examples.append(per_accepted_example(predicted.float(), accepted, found.outputs))
    return summarise(own.whole(examples, found.accepted.device), cell.evaluation.ece_bins)


def _skip(method: Method | InParts, mode: str, each: int) -> Callable[[int], None]:
    """Tells the method of batches that others evaluate, with so many predictions in ``mode`` for ``each``."""
    whole = _whole(method)

    def skip(batches: int) -> None:
        if mode in whole.drawing_modes:
            whole.predictions += batches * each

    return skip


def _whole(method: Method | InParts) -> Method:
    return method.method if isinstance(method, InParts) else method


def _batch_norm(
    cell: Cell, method: Method | InParts, mode: str, data: DataSet
) -> AbstractContextManager[Any]:
    model: nn.Module = method.model
    if cell.evaluation.batch_norm == "reestimated":
        images = data.train.read(_training_places(cell, data), cell.recipe.batch_size)
        batches = (data.normalise(x) for x, _ in images)
        return reestimate(model, lambda x: _undivided(_whole(method), x, mode), batches)
    if cell.evaluation.batch_norm == "batch":
        return batch_statistics(model)
    return nullcontext()


def _undivided(method: Method, x: Tensor, mode: str) -> None:
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
