"""The processes that train one cell together, one on each device."""

from __future__ import annotations

import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.errors import UserError

T = TypeVar("T")

PATIENCE = timedelta(days=1)
"""So long processes wait for each other. One that dies is seen by whoever started it, not by waiting."""

TELLING_SECONDS = 1.0
"""So long the first process has for telling a person's error."""


@dataclass(frozen=True)
class Processes:
    """One process of ``count`` that do the same at the same time, each with a part of every batch.

    Every method but :attr:`first` is for all of them to call, in the same order. One process by itself needs no
    distributed torch.

    Attributes:
        rank: the number of this one, from 0.
        group: for tensors on the device.
        control: for what is on the CPU.
    """

    rank: int = 0
    count: int = 1
    group: dist.ProcessGroup | None = None
    control: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and reports."""
        return self.rank == 0

    def on(self, device: str) -> Processes:
        """The same processes with ``device`` for this one's tensors; NCCL takes their group on GPUs."""
        if self.count == 1 or not device.startswith("cuda"):
            return self
        torch.cuda.set_device(device)
        group = dist.new_group(backend="nccl", timeout=PATIENCE)
        return replace(self, group=cast(dist.ProcessGroup, group))

    def wrap(self, model: nn.Module) -> nn.Module:
        """``model`` so that its gradients become the mean over the processes. Its buffers are each process's own."""
        if self.count == 1:
            return model
        # To look for unused parameters keeps the buckets as they are made: after a rearrangement in the first step a
        # continued run would add up its gradients in another order.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)  # torch 2.11 has no other
            return DistributedDataParallel(
                model, process_group=self.group, broadcast_buffers=False, find_unused_parameters=True
            )

    def share(self, make: Callable[[], T]) -> T:
        """What ``make`` gives in the first process, in all of them; an exception likewise."""
        if self.count == 1:
            return make()
        result: list[Any] = [None, None]
        if self.first:
            try:
                result[0] = make()
            except Exception as error:
                result[1] = error
        dist.broadcast_object_list(result, src=0, group=self.control)
        if result[1] is not None:
            raise result[1]
        return result[0]

    def agree(self, make: Callable[[], T]) -> T:
        """What ``make`` gives in each process. A person's error in one of them ends all: the first raises it."""
        if self.count == 1:
            return make()
        made: list[T] = []
        try:
            made.append(make())
            problem = None
        except UserError as error:
            problem = str(error)
        problems = self.gather((problem, socket.gethostname()))
        for rank, (found, host) in enumerate(problems):
            if found is None:
                continue
            if not self.first:
                time.sleep(TELLING_SECONDS)  # whoever started us ends all when one has ended
                sys.exit(2)
            raise UserError(found if rank == 0 else f"process {rank} of {self.count} on {host}: {found}")
        return made[0]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in their order."""
        values: list[Any] = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value, group=self.control)
        return values

    def largest(self, *values: float) -> list[float]:
        """Of each value the largest of all processes."""
        if self.count == 1:
            return list(values)
        found = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.control)
        return found.tolist()

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Put the mean over all processes in the place of each tensor."""
        if self.count > 1:
            for tensor in tensors:
                dist.all_reduce(tensor, group=self.group)
                tensor /= self.count

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Put the first process's values in the place of each tensor, which has no graph."""
        if self.count > 1:
            for tensor in tensors:
                values = tensor.contiguous()
                dist.broadcast(values, src=0, group=self.group)
                tensor.copy_(values)

    def mirrored(self, tensor: Tensor) -> Tensor:
        """The tensor of the process as far from the last as this one is from the first, of the same shape."""
        partner = self.count - 1 - self.rank
        if partner == self.rank:
            return tensor
        found = torch.empty_like(tensor, memory_format=torch.contiguous_format)
        exchange = [
            dist.P2POp(dist.isend, tensor.contiguous(), partner, self.group),
            dist.P2POp(dist.irecv, found, partner, self.group),
        ]
        for work in dist.batch_isend_irecv(exchange):
            work.wait()
        return found


ALONE = Processes()


@contextmanager
def joined(rank: int, count: int, meeting: str = "env://") -> Iterator[Processes]:
    """This process as one of ``count``, before any of them has a device, see :meth:`Processes.on`.

    Args:
        meeting: torch's ``init_method``.
    """
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count, timeout=PATIENCE)
    try:
        world = cast(dist.ProcessGroup, dist.group.WORLD)
        yield Processes(rank, count, world, world)
    finally:
        dist.destroy_process_group()
