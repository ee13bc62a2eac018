"""Stacks of weight copies, and which rows of an activation belong to which copy.

Activations keep their ordinary layout, batch first: copy m owns the contiguous rows of sub-batch m. Weights
are stacks [M, *shape].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


class StackingError(RuntimeError):
    """A function got stacked weights and is not known to handle them.

    No TypeError: Python's operators would replace one by their own "unsupported operand".
    """


def mark_stacks(weights: Iterable[Tensor]) -> None:
    """Mark tensors [M, *shape] as stacks of weight copies, in place."""
    for weight in weights:
        weight.is_weight_stack = True  # type: ignore[attr-defined]


def is_stack(value: Any) -> bool:
    # An attribute, because torch.compile can trace it without a guard on the tensor's identity. Views and
    # results of other functions do not inherit it.
    return getattr(value, "is_weight_stack", False)


def any_stack(values: Iterable[Any]) -> bool:
    for value in values:
        if isinstance(value, list | tuple):
            if any_stack(value):
                return True
        elif is_stack(value):
            return True
    return False


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors among a function's arguments, in their order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from tensors(entry)


class SubBatches:
    """How the rows of a batch belong to M weight copies, and what the copies share.

    Args:
        sizes: the sub-batches' sizes, M integers.
        batch_norm, running_variance, pooled: see :class:`weightaug.stacking.StackedForward`.
    """

    def __init__(
        self, sizes: Sequence[int], batch_norm: str, running_variance: str, pooled: int | None = None
    ) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.copies = len(self.sizes)
        self.even = len(set(self.sizes)) == 1
        self.separate = batch_norm == "separate" and self.copies > 1
        self.biased = running_variance == "biased"
        self.pooled = sum(self.sizes) if pooled is None else pooled

    def has_rows(self, x: Tensor) -> bool:
        """Whether the first axis of ``x`` can be the batch; windows or tokens may be merged into it."""
        return x.dim() > 0 and len(x) > 0 and len(x) % sum(self.sizes) == 0

    def row_counts(self, x: Tensor) -> list[int]:
        """Rows of ``x`` that belong to each copy."""
        if not self.has_rows(x):
            raise StackingError(
                f"an activation of shape {tuple(x.shape)} does not have the batch as first axis"
            )
        return [len(x) // sum(self.sizes) * size for size in self.sizes]

    def rows(self, stack: Tensor, counts: Sequence[int]) -> Tensor:
        """Repeat each copy's entry for its rows: [M, *shape] -> [rows, *shape]."""
        if self.even:
            return stack.unsqueeze(1).expand(-1, counts[0], *stack.shape[1:]).flatten(0, 1)
        return torch.cat(
            [entry.expand(n, *entry.shape) for entry, n in zip(stack.unbind(), counts, strict=True)]
        )

    def stacked(self, weight: Tensor) -> Tensor:
        """``weight`` as a stack, if it is not one already."""
        return weight if is_stack(weight) else weight.expand(self.copies, *weight.shape)

    def by_copy(self, value: Any) -> list[Any]:
        """``value`` once for each copy, with that copy's tensor in place of every stack in it."""
        if isinstance(value, dict):
            return [dict(zip(value, own, strict=True)) for own in self.by_copy(list(value.values()))]
        if isinstance(value, list | tuple):
            entries = [self.by_copy(entry) for entry in value]
            return [type(value)(own[m] for own in entries) for m in range(self.copies)]
        # Unbound, not indexed: the gradient of each index would be a whole stack.
        return list(value.unbind()) if is_stack(value) else [value] * self.copies

    def spread(self, stack: Tensor, x: Tensor) -> Tensor | None:
        """Each copy's entry for the copy's rows, to be broadcast with ``x``; None if it does not broadcast."""
        missing = x.dim() - (stack.dim() - 1)
        if missing < 0 or (missing == 0 and stack.shape[1] != 1):
            return None
        aligned = stack.view(self.copies, *(1,) * missing, *stack.shape[1:]).squeeze(1)
        return self.rows(aligned, self.row_counts(x))

    def affine(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, trailing: int) -> Tensor:
        """``x * weight + bias`` per copy; the parameters' axes end ``trailing`` axes before the last of x."""

        def spread(stack: Tensor) -> Tensor:
            stack = self.stacked(stack).to(x.dtype)  # autocast's lower precision stays, as in one pass
            ahead = (1,) * (x.dim() - trailing - stack.dim())
            stack = stack.view(self.copies, *ahead, *stack.shape[1:], *(1,) * trailing)
            return self.rows(stack, counts)

        counts = self.row_counts(x)
        if weight is None:
            return x if bias is None else x + spread(bias)
        return x * spread(weight) if bias is None else torch.addcmul(spread(bias), x, spread(weight))
