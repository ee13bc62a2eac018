"""A stand-in for a GPU: tensors of torch's ``meta`` device, which have shapes but no values.

As on a GPU, they can't be mixed with the CPU's tensors. Other than there, whatever would wait for a value is an error,
and so is every copy to the device, which would wait for its kernels, but those of
:func:`weightaug.transfer.send`, and of Python's numbers those that are kept (:data:`KEEPING`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import CodeType, FrameType
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.data.dataset import channels
from benchmarks.training.graph import GraphStep
from weightaug import kernel_draws, transfer

DEVICE = "meta"


class NothingCrosses(TorchDispatchMode):
    """Raises where a kernel gets tensors of both devices; a CPU tensor without dimensions counts as a number.

    Attributes:
        sent: shapes of what came to the device as it should.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        fused = func.overloadpacket.__name__.startswith(
            "_fused_"
        )  # optimizers, of which there are no shapes to tell
        result = None if fused else func(*args, **(kwargs or {}))
        tensors = [value for value in tree_leaves((args, kwargs, result)) if isinstance(value, Tensor)]
        ours = [value for value in tensors if not value.is_meta and value.dim()]
        if ours and len(ours) < len([value for value in tensors if value.is_meta or value.dim()]):
            if not _within(transfer.send.__code__):
                raise AssertionError(f"{func} mixes a CPU tensor {list(ours[0].shape)} with the device's")
            self.sent.append(tuple(ours[0].shape))
        return result


KEEPING = (
    channels.__wrapped__.__code__,
    kernel_draws._matrix.__wrapped__.__code__,
    GraphStep.__init__.__code__,
)
"""What may copy Python's numbers to the device, as it does so once."""
NUMBERS = (torch.tensor, torch.as_tensor, Tensor.new_tensor)


class NoNumbersCross(TorchFunctionMode):
    """Raises where a tensor on the device is made of Python's numbers, which no dispatch mode sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in NUMBERS and result.is_meta and not _within(*KEEPING):
            raise AssertionError(f"{func.__name__} copies {list(result.shape)} numbers to the device")
        return result


def _within(*functions: CodeType) -> bool:
    """Whether one of the functions is being called."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code not in functions:
        frame = frame.f_back
    return frame is not None


@contextmanager
def nothing_crosses() -> Iterator[NothingCrosses]:
    """Within the context the device gets tensors by ``send`` alone."""
    generator = torch.Generator
    with (  # the device has neither; the numbers that are drawn for it have no values
        mock.patch("torch.Generator", lambda device="cpu": generator()),
        mock.patch("torch.autocast", lambda *_, **__: nullcontext()),
        NoNumbersCross(),
        NothingCrosses() as seen,
    ):
        yield seen
