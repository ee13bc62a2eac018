"""Parts of a mini-batch, for several processes or for gradient accumulation, that give what the whole one gives.

A step on a mini-batch may be cut in contiguous parts: one for each process, some that a process takes one after
another, or both. Three things tell a part from a mini-batch of its own: which sub-batches it holds, which rows of the
random numbers that are drawn for every example, and, with BatchNorm, whose statistics it is normalised with.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from weightaug.synchronised import batch_norm
from weightaug.wrappers import distributed


@dataclass(frozen=True)
class Part:
    """Part ``number`` of ``count``: the examples ``start`` to ``start + size`` of ``total``.

    Attributes:
        group: the processes over which BatchNorm in training takes its statistics, each at work on a part of the same
            size or one less; None: each normalises its own part.
        last: whether it is the last that this process takes in the step.
    """

    number: int
    count: int
    start: int
    size: int
    total: int
    group: dist.ProcessGroup | None = None
    last: bool = True

    @classmethod
    def of(cls, model: nn.Module, size: int) -> Part:
        """The part that ``size`` examples are, of equal ones, where DistributedDataParallel wraps the model."""
        parallel = distributed(model)
        if parallel is None:
            return cls(0, 1, 0, size, size)
        number, count = dist.get_rank(parallel.process_group), dist.get_world_size(parallel.process_group)
        return cls(number, count, number * size, size, count * size)

    def rows(self, length: int) -> tuple[int, int] | None:
        """First row and number of rows of an activation of the whole mini-batch, of which ``length`` are this part's.

        The first axis is the batch, with which others, such as windows, may have been merged. None if it can't be.
        """
        times, rest = divmod(length, self.size)
        return None if rest or not times else (times * self.start, times * self.total)

    def draw(self, like: Tensor, fill: Callable[[Tensor], Tensor]) -> Tensor:
        """What ``fill`` puts into a tensor of the shape and layout of ``like``: its rows of the whole mini-batch's."""
        found = self.rows(len(like)) if self.count > 1 and like.dim() else None
        if found is None:
            return fill(torch.empty_like(like))
        start, length = found
        return fill(_longer(like, length))[start : start + len(like)]

    def layers(self) -> AbstractContextManager[Any]:
        """Within the context layers treat the part as they treat it within the whole mini-batch."""
        return nullcontext() if self.count == 1 else PartOfBatch(self)


def _longer(like: Tensor, length: int) -> Tensor:
    """An empty tensor with ``length`` rows instead, whose memory goes through its axes in the same order."""
    dense = like.dim() > 1 and like.stride(0) * len(like) == like.numel()
    shape = (length, *like.shape[1:])
    return torch.empty_strided(
        shape,
        like.stride() if dense else torch.empty(shape, device="meta").stride(),
        dtype=like.dtype,
        device=like.device,
    )


class PartOfBatch(TorchFunctionMode):
    """While active, layers treat a part of a mini-batch as they treat it within the whole one.

    BatchNorm in training takes its statistics over the processes of the part's group. What layers draw from torch's
    global generator for every example, which must be seeded alike for all parts of a step, is drawn for the whole
    mini-batch, and the part gets its rows: dropout of all kinds, ``torch.rand``, ``randn``, ``rand_like`` and
    ``randn_like``, ``torch.bernoulli``, and ``Tensor.bernoulli_``, ``uniform_`` and ``normal_``. Dropout inside fused
    attention gets numbers of its own in each part. Draws from another generator are left alone.
    """

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm and self.part.group is not None:
            return batch_norm(self.part.group, *args, **kwargs)
        handler = DRAWS.get(func)
        if handler is None or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        return handler(self.part, func, *args, **kwargs)


def _of_rows(part: Part, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    """A function that treats every element of its first argument by itself, on the rows of the whole mini-batch."""
    found = part.rows(len(x)) if x.dim() else None
    if found is None:
        return func(x, *args, **kwargs)
    start, length = found
    whole = torch.slice_scatter(_longer(x, length).zero_(), x, 0, start, start + len(x))
    return func(whole, *args, **kwargs)[start : start + len(x)]


def _dropout(
    part: Part, func: Any, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Any:
    if not training or p == 0:
        return func(input, p, training, inplace)
    result = _of_rows(part, func, input, p, training)
    return input.copy_(result) if inplace else result


def _fill(part: Part, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    with torch.no_grad():
        return x.copy_(part.draw(x, lambda whole: func(whole, *args, **kwargs)))


def _new(part: Part, func: Any, *size: Any, **kwargs: Any) -> Tensor:
    shape = kwargs.pop("size", None) or (size[0] if size and not isinstance(size[0], int) else size)
    found = part.rows(shape[0]) if len(shape) else None
    if found is None:
        return func(shape, **kwargs)
    start, length = found
    return func(length, *shape[1:], **kwargs)[start : start + shape[0]]


def _apart(part: Part, func: Any, *args: Any, **kwargs: Any) -> Any:
    """With random numbers that no other part has; what is drawn afterwards does not depend on how many they were."""
    drops = kwargs.get("dropout_p") or (args[4] if func is F.scaled_dot_product_attention and args[4:] else 0)
    if func is F.multi_head_attention_forward:
        drops = args[10] and kwargs.get("training", True)
    if not drops:
        return func(*args, **kwargs)
    seed = int(torch.randint(2**62, ()))
    device = args[0].device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed + part.number)
        return func(*args, **kwargs)


DRAWS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(
        (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout), _dropout
    ),
    **dict.fromkeys((torch.dropout, torch.rand_like, torch.randn_like, torch.bernoulli), _of_rows),
    **dict.fromkeys((Tensor.bernoulli_, Tensor.uniform_, Tensor.normal_), _fill),
    **dict.fromkeys((torch.rand, torch.randn), _new),
    **dict.fromkeys((F.scaled_dot_product_attention, F.multi_head_attention_forward), _apart),
}
"""How functions run that draw random numbers for every example."""
