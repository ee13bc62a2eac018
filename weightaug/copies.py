"""One forward pass of a model with M weight copies, each on its own sub-batch."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves, tree_map

from weightaug.parts import Part
from weightaug.stacking import StackedForward
from weightaug.stacks import StackingError, mark_stacks
from weightaug.wrappers import PREFIX, unwrap

BATCH_NORMS = ("synchronised", "separate")
RUNNING_VARIANCES = ("unbiased", "biased")


class WeightCopies:
    """Runs a model with M weight copies: contiguous sub-batch m of the batch sees weight copy m.

    The copies are stacked and run in one pass where every function that takes weights has a stacked form
    (convolution, linear, normalisation, attention, embedding, functions of weights alone) and the batch is the
    first axis of every activation. The first call proves it: on an evaluated copy of the model and with other
    weights, the stacked pass must give what one pass per sub-batch gives. Where it does not, a warning says
    so and the model runs once per sub-batch, which is the same where the sub-batches do not meet, that is
    without synchronised BatchNorm.

    A batch whose size N is no multiple of M is split into contiguous sub-batches whose sizes differ by one,
    the larger ones first; nothing is dropped.

    Args:
        model: any module that maps [N, ...] to a tensor [N, ...], or to several in a tuple or dict; may be
            wrapped by DistributedDataParallel, before or after torch.compile.
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
        part = Part.of(model, 1)
        if sub_batches > part.count and any(isinstance(m, nn.SyncBatchNorm) for m in model.modules()):
            raise ValueError(
                "SyncBatchNorm does not know weight copies: use BatchNorm, or one sub-batch per process"
            )
        self.model = model
        self.batch_norm = batch_norm
        self.running_variance = running_variance
        self.sub_batches = sub_batches
        self.take(part)
        self.stacked = stacked
        self.parametrisation: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
        self._proven: set[torch.Size] = set()
        self._modes: dict[tuple[int, ...], StackedForward] = {}

    def take(self, part: Part) -> None:
        """Run the copies that the sub-batches of ``part`` see: ``numbers`` among all.

        Raises:
            ValueError: the parts cannot have the same number of sub-batches.
        """
        if self.sub_batches % part.count:
            raise ValueError(
                f"sub_batches={self.sub_batches} cannot be shared among {part.count} processes: "
                f"use a multiple of {part.count}"
            )
        count = self.sub_batches // part.count
        self.part, self.numbers = part, range(part.number * count, (part.number + 1) * count)

    def __len__(self) -> int:
        return len(self.numbers)

    def sizes(self, n: int) -> list[int]:
        """Sizes of the sub-batches of a batch of ``n``."""
        copies = len(self)
        if copies > n:
            raise ValueError(
                f"a batch of {n} cannot be split into {copies} sub-batches: "
                f"use a larger batch or sub_batches <= {n}, or leave out a small last batch"
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
        # Separate statistics are kept of copy 0 alone.
        keep_statistics = keep_statistics or (self.batch_norm == "separate" and self.numbers.start > 0)
        if self.parametrisation is not None:
            weights = self.parametrisation(weights)
        if len(sizes) == 1:
            weights = {name: stack.squeeze(0) for name, stack in weights.items()}
            with self._mode(sizes) if self.running_variance == "biased" else nullcontext():
                return self._call(weights, x, keep_statistics)
        why = None
        if self.stacked and x.shape not in self._proven:
            why = self._disproof(weights, x, sizes)
            self.stacked = why is None
            self._proven.add(x.shape)
        if not self.stacked:
            output = self._loop(weights, x, sizes, keep_statistics, why)
            if why:
                warnings.warn(f"{why}; running the model once per sub-batch instead", stacklevel=4)
            return output
        mark_stacks(weights.values())
        with self._mode(sizes):
            return self._call(weights, x, keep_statistics)

    def _disproof(self, like: Mapping[str, Tensor], x: Tensor, sizes: list[int]) -> str | None:
        """Why one stacked pass is not the same as one pass per sub-batch; None if it is.

        Independent weights of the size of the model's, for the model's own copies may still be equal.
        """
        device, dtype = (getattr(next(iter(like.values())), name) for name in ("device", "dtype"))
        generator = torch.Generator(device).manual_seed(0)
        weights = {}
        for name, stack in like.items():
            size = stack.detach().square().mean().sqrt()
            noise = torch.empty(stack.shape, dtype=stack.dtype, device=device).normal_(generator=generator)
            weights[PREFIX.sub("", name)] = (noise * torch.where(size > 0, size, 0.1)).requires_grad_()
        if x.is_floating_point():  # in the weights' own precision
            x = x.detach().nan_to_num().to(dtype)
        reasons = []
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(cuda), torch.autocast(device.type, enabled=False):
            for training in (False, True):  # dropout differs in training; some models cache in evaluation
                reasons.append(self._difference(weights, x, sizes, training))
                if reasons[-1] is None:
                    return None
        return reasons[0]

    def _difference(
        self, weights: Mapping[str, Tensor], x: Tensor, sizes: list[int], training: bool
    ) -> str | None:
        """Why the two ways differ on a copy of the model, with separate statistics, which couple nothing."""
        try:
            model = copy.deepcopy(unwrap(self.model)[-1]).train(training)
        except Exception as error:
            return f"the model cannot be deep-copied to check the stacked pass ({error})"
        trial = WeightCopies(model, len(sizes), "separate", self.running_variance)
        trial._proven.add(x.shape)
        output, why = None, None
        try:
            output = trial.forward(weights, x)
        except Exception as error:
            why = str(error) or type(error).__name__
        trial.stacked = False
        try:
            expected = trial.forward(weights, x)
        except Exception:
            if training:
                raise  # an error of the model itself
            return "the model cannot be evaluated"
        if why is not None:
            return why
        for ours, theirs in zip(tree_leaves(output), tree_leaves(expected), strict=True):
            if not torch.is_tensor(theirs) or not theirs.is_floating_point():
                continue
            tolerance = max(0.01, 16 * torch.finfo(theirs.dtype).eps)
            if (ours - theirs).norm() > tolerance * theirs.norm():
                return "stacked, the sub-batches mix: some activation's first axis is not the batch"
        return None

    def _mode(self, sizes: list[int]) -> StackedForward:
        """One mode for each way to split, kept, so that compiled models need not be compiled again."""
        pooled = sum(sizes) if self.part.group is None else self.part.total
        key = (*sizes, pooled)
        if key not in self._modes:
            self._modes[key] = StackedForward(sizes, self.batch_norm, self.running_variance, pooled)
        return self._modes[key]

    def _loop(
        self,
        weights: Mapping[str, Tensor],
        x: Tensor,
        sizes: list[int],
        keep: bool,
        why: str | None = None,
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
        return tree_map(lambda *parts: torch.cat(parts), *outputs)

    def _call(self, tensors: Mapping[str, Tensor], x: Tensor, keep: bool) -> Tensor:
        buffers = self._buffer_copies() if keep else {}
        return functional_call(self.model, {**tensors, **buffers}, (x,))

    def _buffer_copies(self) -> dict[str, Tensor]:
        return {name: buffer.clone() for name, buffer in self.model.named_buffers()}
