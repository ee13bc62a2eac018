"""One forward pass of a model with M weight copies, each on its own sub-batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from weightaug.stacking import StackedForward, StackingError, mark_stacks
from weightaug.wrappers import distributed

BATCH_NORMS = ("synchronised", "separate")
RUNNING_VARIANCES = ("unbiased", "biased")


class WeightCopies:
    """Runs a model with M weight copies: contiguous sub-batch m of the batch sees weight copy m.

    The copies are stacked and run in one pass where every function that takes weights has a stacked form
    (convolution, linear, normalisation, attention, embedding); the batch must be the first axis of every
    activation. Else the model runs once per sub-batch, which is the same where the sub-batches do not meet,
    that is without synchronised BatchNorm.

    A batch whose size N is no multiple of M is split into contiguous sub-batches whose sizes differ by one,
    the larger ones first; nothing is dropped.

    Args:
        model: any module that maps [N, ...] to a tensor [N, ...]; may be wrapped by DistributedDataParallel, before
            or after torch.compile.
        sub_batches: M, over all processes together: of K processes each runs M / K copies.
        batch_norm: ``"synchronised"`` or ``"separate"``, see :class:`weightaug.stacking.StackedForward`.
        running_variance: ``"unbiased"`` (PyTorch) or ``"biased"`` (Flax), of the running estimate.
        stacked: False runs the model once per sub-batch in any case.

    Attributes:
        parametrisation: maps the stacks given to ``forward`` to those that the model runs with, or None. A
            method's perturbation and gradient are thus of the weights before it.

    Raises:
        ValueError: an argument is not one of those above, or SyncBatchNorm would see several copies.
    """

    def __init__(
        self,
        model: nn.Module,
        sub_batches: int = 1,
        batch_norm: str = "synchronised",
        running_variance: str = "unbiased",
        stacked: bool = True,
    ) -> None:
        if sub_batches < 1:
            raise ValueError(f"sub_batches={sub_batches}: at least one sub-batch is needed")
        if batch_norm not in BATCH_NORMS:
            raise ValueError(f"unknown batch_norm {batch_norm!r}; use {' or '.join(BATCH_NORMS)}")
        if running_variance not in RUNNING_VARIANCES:
            raise ValueError(
                f"unknown running_variance {running_variance!r}; use {' or '.join(RUNNING_VARIANCES)}"
            )
        rank, processes = 0, 1
        parallel = distributed(model)
        if parallel is not None:
            group = parallel.process_group
            rank, processes = torch.distributed.get_rank(group), torch.distributed.get_world_size(group)
        if sub_batches % processes:
            raise ValueError(
                f"sub_batches={sub_batches} cannot be shared among {processes} processes: "
                f"use a multiple of {processes}"
            )
        if sub_batches > processes and any(isinstance(m, nn.SyncBatchNorm) for m in model.modules()):
            raise ValueError(
                "SyncBatchNorm does not know weight copies: use BatchNorm, or one sub-batch per process"
            )
        self.model = model
        self.batch_norm = batch_norm
        self.running_variance = running_variance
        count = sub_batches // processes
        self.numbers = range(rank * count, (rank + 1) * count)  # of this process's copies among all
        self.stacked = stacked and not _batch_is_second(model)
        self.parametrisation: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
        self._proven = False
        self._modes: dict[tuple[int, ...], StackedForward] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    def sizes(self, n: int) -> list[int]:
        """Sizes of the sub-batches of a batch of ``n``."""
        copies = len(self)
        if copies > n:
            raise ValueError(
                f"a batch of {n} cannot be split into {copies} sub-batches: "
                f"use a larger batch or sub_batches <= {n}"
            )
        return [n // copies + (m < n % copies) for m in range(copies)]

    def forward(self, weights: Mapping[str, Tensor], x: Tensor, keep_statistics: bool = False) -> Tensor:
        """The model's output on ``x``.

        Args:
            weights: by parameter name, the stack [M, *shape] of copies; other parameters are shared.
            x: the batch [N, ...].
            keep_statistics: leave the model's buffers as they are.

        Returns:
            The outputs [N, ...] in the order of ``x``.

        Raises:
            ValueError: N is less than M.
            StackingError: a function has no stacked form, and synchronised BatchNorm forbids a loop.
        """
        sizes = self.sizes(len(x))
        if self.parametrisation is not None:
            weights = self.parametrisation(weights)
        if not self.stacked and len(sizes) > 1:
            return self._loop(weights, x, sizes, keep_statistics)
        if self._proven or len(sizes) == 1:
            return self._stacked(weights, x, sizes, keep_statistics)
        before = self._buffer_copies()
        try:
            output = self._stacked(weights, x, sizes, keep_statistics)
        except StackingError as error:
            with torch.no_grad():
                for name, buffer in self.model.named_buffers():
                    buffer.copy_(before[name])
            output = self._loop(weights, x, sizes, keep_statistics, error)
            self.stacked = False
            warnings.warn(f"{error}; running the model once per sub-batch instead", stacklevel=4)
        self._proven = True
        return output

    def _stacked(self, weights: Mapping[str, Tensor], x: Tensor, sizes: list[int], keep: bool) -> Tensor:
        if len(sizes) > 1:
            mark_stacks(weights.values())
            with self._mode(sizes):
                return self._call(weights, x, keep)
        weights = {name: stack.squeeze(0) for name, stack in weights.items()}
        with self._mode(sizes) if self.running_variance == "biased" else nullcontext():
            return self._call(weights, x, keep)

    def _mode(self, sizes: list[int]) -> StackedForward:
        """One mode for each way to split, kept, so that compiled models need not be compiled again."""
        key = tuple(sizes)
        if key not in self._modes:
            self._modes[key] = StackedForward(sizes, self.batch_norm, self.running_variance)
        return self._modes[key]

    def _loop(
        self,
        weights: Mapping[str, Tensor],
        x: Tensor,
        sizes: list[int],
        keep: bool,
        why: Exception | None = None,
    ) -> Tensor:
        if self.batch_norm == "synchronised" and any(
            isinstance(module, _BatchNorm) and module.training for module in self.model.modules()
        ):
            reason = why or "the copies are not stacked"
            raise StackingError(
                f"{reason}, and one pass per sub-batch cannot synchronise BatchNorm: "
                "use batch_norm='separate' or sub_batches=1"
            )
        copies = {name: stack.unbind() for name, stack in weights.items()}
        outputs = []
        for m, part in enumerate(x.split(sizes)):
            own = {name: stack[m] for name, stack in copies.items()}
            with self._mode(sizes[m : m + 1]) if self.running_variance == "biased" else nullcontext():
                outputs.append(self._call(own, part, keep or m > 0))
        return torch.cat(outputs)

    def _call(self, tensors: Mapping[str, Tensor], x: Tensor, keep: bool) -> Tensor:
        buffers = self._buffer_copies() if keep else {}
        return functional_call(self.model, {**tensors, **buffers}, (x,))

    def _buffer_copies(self) -> dict[str, Tensor]:
        return {name: buffer.clone() for name, buffer in self.model.named_buffers()}


def _batch_is_second(model: nn.Module) -> bool:
    """Whether the model holds attention whose activations are [tokens, batch, width]."""
    return any(
        isinstance(module, nn.MultiheadAttention) and not module.batch_first for module in model.modules()
    )
