"""One forward pass with M stacked weight copies.

Elementwise functions, pooling and reshaping of activations need nothing; only the functions that take weights
are replaced, by a :class:`torch.overrides.TorchFunctionMode`, so that models stay untouched.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode

from weightaug.stacked_functions import (
    OF_ACTIVATIONS,
    OF_WEIGHTS,
    attention,
    batch_norm,
    each_weight,
    elementwise,
)
from weightaug.stacks import StackingError, SubBatches, any_stack, is_stack, tensors


class StackedForward(SubBatches, TorchFunctionMode):
    """While active, functions that take weights accept stacks of them; all other tensors are shared.

    A function of weights alone, or of weights and constants, runs for each copy by itself, and what it gives
    are stacks again. Constants are told from activations by their first axis, which is not the batch's.

    Args:
        sizes: the sub-batches' sizes, M integers.
        batch_norm: ``"synchronised"`` pools the training statistics over all sub-batches (and differentiates
            through the pooling), ``"separate"`` lets every sub-batch normalise alone and keeps the running
            statistics of copy 0.
        running_variance: ``"unbiased"`` as PyTorch keeps it, ``"biased"`` as Flax does.
        pooled: over how many examples BatchNorm takes its statistics, where other processes have some of them.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm and not is_stack(args[0]):
            return batch_norm(self, *args, **kwargs)
        # A compiled model calls aten's operators, for which its stacks have been unfolded while tracing.
        if isinstance(func, OpOverload) or not any_stack((*args, *kwargs.values())):
            return func(*args, **kwargs)
        first = next(tensors((args, kwargs)))
        if is_stack(first):
            return OF_WEIGHTS.get(func, each_weight)(self, func, *args, **kwargs)
        handler = OF_ACTIVATIONS.get(func)
        if handler is None:
            raise StackingError(f"{getattr(func, '__name__', func)} has no form for stacked weight copies")
        if handler not in (attention, elementwise) and not self.has_rows(first):
            handler = each_weight  # they look at all their operands
        return handler(self, func, *args, **kwargs)
