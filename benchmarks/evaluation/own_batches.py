"""Which batches of a set of images a process evaluates, of several that have the same trained model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.data.dataset import ImageSet
from benchmarks.training.processes import ALONE, Processes


@dataclass(frozen=True)
class OwnBatches:
    """Neighbouring whole batches for each process, so that every batch is one that a single process has.

    Attributes:
        size: of a batch; the last of a set may be smaller.
    """

    processes: Processes = ALONE
    size: int = 1

    def numbers(self, total: int) -> range:
        """The numbers of this process's batches of ``total`` images; there may be none."""
        rank, count, batches = self.processes.rank, self.processes.count, -(-total // self.size)
        return range(rank * batches // count, (rank + 1) * batches // count)

    def places(self, total: int) -> Tensor:
        """Which of ``total`` images are in them, int64 [n] on the CPU."""
        numbers = self.numbers(total)
        return torch.arange(total)[numbers.start * self.size : numbers.stop * self.size]

    def batches(
        self, images: ImageSet, skip: Callable[[int], None]
    ) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Each of this process's batches: its number, uint8 [n, C, H, W], labels [n], places int64 [n] on the CPU.

        Args:
            skip: is told of so many batches, before and after, that are other processes'.
        """
        numbers, places = self.numbers(len(images)), self.places(len(images))
        skip(numbers.start)
        if numbers:
            read = images.read(places, self.size)
            for number, (x, labels), of_batch in zip(numbers, read, places.split(self.size), strict=True):
                yield number, x, labels, of_batch
        skip(-(-len(images) // self.size) - numbers.stop)

    def whole(self, examples: list[Tensor], device: torch.device) -> Tensor:
        """[K, N] of all images, in their order, from the [K, n] of each of this process's batches on ``device``."""
        if self.processes.count == 1:
            return torch.cat(examples, 1)
        gathered = self.processes.gather([batch.cpu() for batch in examples])
        return torch.cat([batch for of_process in gathered for batch in of_process], 1).to(device)


EVERYTHING = OwnBatches()
"""What a single process evaluates."""
