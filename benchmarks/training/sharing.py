"""Which part of every batch a process trains on, and in how many parts it does so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.cell import Cell
from benchmarks.errors import UserError
from benchmarks.training.processes import ALONE, Processes
from weightaug import Method, Part, WeightCopies


@dataclass(frozen=True)
class Sharing:
    """Batches are cut in ``processes.count * accumulate`` contiguous parts, each of whole sub-batches.

    A process has neighbouring parts, so that all it needs of a batch is one piece.

    Attributes:
        sub_batches: the method's; 1 for one that has none.
        synchronised: whether BatchNorm takes its statistics over the whole batch, in all processes.
    """

    processes: Processes = ALONE
    accumulate: int = 1
    sub_batches: int = 1
    synchronised: bool = True

    @property
    def count(self) -> int:
        return self.processes.count * self.accumulate

    def _start(self, part: int, total: int) -> int:
        """The first example of a part; sub-batches differ in size by one, the larger ones first."""
        pieces = self.sub_batches if self.sub_batches > 1 else self.count
        sub_batch = part * pieces // self.count
        return sub_batch * (total // pieces) + min(sub_batch, total % pieces)

    def own(self, total: int) -> slice:
        """This process's rows of a batch of ``total``."""
        first = self.processes.rank * self.accumulate
        return slice(self._start(first, total), self._start(first + self.accumulate, total))

    def parts(self, total: int) -> Iterator[tuple[Part, slice, float]]:
        """Each part, its rows among the process's own, and its weight in the mean over all parts."""
        first = self.processes.rank * self.accumulate
        for number in range(first, first + self.accumulate):
            start, stop = self._start(number, total), self._start(number + 1, total)
            group = self.processes.group if self.synchronised else None
            last = number == first + self.accumulate - 1
            part = Part(number, self.count, start, stop - start, total, group, last)
            before = self.own(total).start
            yield part, slice(start - before, stop - before), (stop - start) * self.count / total


def sharing(method: Method, processes: Processes = ALONE, accumulate: int = 1) -> Sharing:
    """How the batches of a method are shared."""
    copies = _copies(method)
    if copies is None:
        return Sharing(processes, accumulate)
    return Sharing(processes, accumulate, copies.sub_batches, copies.batch_norm != "separate")


def _copies(method: Method | None) -> WeightCopies | None:
    if method is None:
        return None
    return getattr(method, "copies", None) or _copies(getattr(method, "within", None))


def check_sharing(cell: Cell, method: Method, devices: int, accumulate: int, examples: int) -> None:
    """Raise a UserError where the batches can't be shared without changing what the cell is.

    Args:
        examples: of the training set.
    """
    parts, batch = devices * accumulate, cell.recipe.batch_size
    if parts == 1:
        return
    asked = " times ".join(
        f"{name}={n}" for name, n in (("devices", devices), ("accumulate", accumulate)) if n > 1
    )
    copies = found.sub_batches if (found := _copies(method)) else cell.method.arguments.get("sub_batches")
    if copies is not None and copies % parts:
        most = "more than" if parts > copies else "no divisor of"
        raise UserError(
            f"{asked} is {most} method.sub_batches={copies}: every part needs the same number of sub-batches; "
            f"use {_divisors(copies)}"
        )
    if batch % parts:
        raise UserError(f"recipe.batch_size={batch} can't be divided by {asked}; use {_divisors(batch)}")
    normalised = any(isinstance(module, _BatchNorm) for module in method.model.modules())
    if accumulate > 1 and normalised and sharing(method).synchronised:
        raise UserError(
            f"accumulate={accumulate}: BatchNorm takes its statistics over the whole batch, which parts that run one "
            f"after another can't know; use devices={accumulate}, or a network without BatchNorm"
        )
    last = (
        batch if examples % batch == 0 or (cell.recipe.drop_last and examples >= batch) else examples % batch
    )
    if last < parts:
        raise UserError(
            f"the last batch of an epoch has {last} images, fewer than {asked}; use fewer, or recipe.drop_last=true "
            "(another cell)"
        )
    mixed = cell.recipe.mixup_lambda is not None or cell.recipe.mixup_alpha is not None
    if mixed and devices > 1 and any(size % max(copies or 1, devices) for size in (batch, last)):
        raise UserError(
            f"MixUp on {devices} devices needs batches that divide into equal parts, and an epoch has one of {last}; "
            "use devices=1"
        )


def _divisors(number: int) -> str:
    """Those above 1, for an error message."""
    found = [n for n in range(2, min(number, 64) + 1) if number % n == 0]
    return ", ".join(map(str, found)) if found else "1"
