"""Which part of every batch a process trains on, and in how many parts it does so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.cell import Cell
from benchmarks.errors import UserError
from benchmarks.training.processes import ALONE, Processes
from weightaug import Method, Part, WeightCopies

MOST = 64
"""So many devices, or parts one after another, are tried when a number that is possible is looked for."""


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


@dataclass(frozen=True)
class Shareable:
    """What of a cell decides in how many parts its batches may be run.

    Attributes:
        last: images in the last batch of an epoch.
        sub_batches: the method's; None for one that has none.
        mixed: whether batches are mixed with themselves.
        coupled: whether BatchNorm takes its statistics over the whole batch.
    """

    batch: int
    last: int
    sub_batches: int | None
    mixed: bool
    coupled: bool

    @classmethod
    def of(cls, cell: Cell, method: Method, examples: int) -> Shareable:
        """
        Args:
            method: the cell's, on its model, which may be on the meta device.
            examples: of the training set.
        """
        recipe, copies = cell.recipe, _copies(method)
        rest = examples % recipe.batch_size
        dropped = recipe.drop_last and examples >= recipe.batch_size
        normalised = any(isinstance(module, _BatchNorm) for module in method.model.modules())
        return cls(
            batch=recipe.batch_size,
            last=recipe.batch_size if dropped or not rest else rest,
            sub_batches=copies.sub_batches if copies else cell.method.arguments.get("sub_batches"),
            mixed=recipe.mixup_lambda is not None or recipe.mixup_alpha is not None,
            coupled=normalised and sharing(method).synchronised,
        )

    def refusal(self, devices: int, accumulate: int) -> str | None:
        """Why the batches can't be shared so without changing what the cell is; None if they can."""
        parts, asked, copies = devices * accumulate, asked_for(devices, accumulate), self.sub_batches
        if parts == 1:
            return None
        if copies is not None and copies % parts:
            most = "more than" if parts > copies else "no divisor of"
            return f"{asked} is {most} method.sub_batches={copies}: every part needs the same number of sub-batches"
        if self.batch % parts:
            return f"recipe.batch_size={self.batch} can't be divided by {asked}"
        if accumulate > 1 and self.coupled:
            return (
                f"accumulate={accumulate}: BatchNorm takes its statistics over the whole batch, which parts that run "
                "one after another can't know"
            )
        if self.last < parts:
            return f"the last batch of an epoch has {self.last} images, fewer than {asked}"
        sizes = (self.batch, self.last)
        if self.mixed and devices > 1 and any(size % max(copies or 1, devices) for size in sizes):
            return (
                f"MixUp on {devices} devices needs batches that divide into equal parts, and an epoch has one of "
                f"{self.last}"
            )
        return None

    def check(self, devices: int, accumulate: int) -> None:
        """Raise a UserError where :meth:`refusal` has a reason."""
        if refused := self.refusal(devices, accumulate):
            raise UserError(f"{refused}; {advice([self], devices, accumulate)}")


def advice(cells: Sequence[Shareable], devices: int, accumulate: int) -> str:
    """What would be right for all ``cells`` in the place of the ``devices`` and ``accumulate`` that are not."""

    def fitting(of: Callable[[int], tuple[int, int]]) -> str:
        found = [n for n in range(2, MOST + 1) if not any(cell.refusal(*of(n)) for cell in cells)]
        return _either(found)

    alone = fitting(lambda n: (n, 1))
    if accumulate == 1:
        return f"use devices={alone}" if alone else "no number of devices above 1 is possible"
    if found := fitting(lambda n: (n, accumulate)):
        return f"use devices={found} with accumulate={accumulate}"
    if found := fitting(lambda n: (devices, n)):
        return f"use accumulate={found} with devices={devices}"
    return "leave out accumulate" + (f", and use devices={alone}" if alone else "")


def asked_for(devices: int, accumulate: int) -> str:
    """The settings above 1, as a person gives them."""
    return " times ".join(
        f"{name}={n}" for name, n in (("devices", devices), ("accumulate", accumulate)) if n > 1
    )


def _either(numbers: Sequence[int]) -> str:
    """Such as ``2, 4 or 8``; empty for none."""
    *others, last = [str(number) for number in numbers] or [""]
    return f"{', '.join(others)} or {last}" if others else last
