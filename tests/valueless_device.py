"""A stand-in for a GPU: tensors of torch's ``meta`` device, which have shapes but no values.

As on a GPU, they can't be mixed with the CPU's tensors. Other than there, whatever would wait for a value is an error,
and so is every copy to the device, which would wait for its kernels, but those of
:func:`weightaug.transfer.send`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from weightaug import transfer

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
            if not _sending():
                raise AssertionError(f"{func} mixes a CPU tensor {list(ours[0].shape)} with the device's")
            self.sent.append(tuple(ours[0].shape))
        return result


def _sending() -> bool:
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code is not transfer.send.__code__:
        frame = frame.f_back
    return frame.f_back is not None


@contextmanager
def nothing_crosses() -> Iterator[NothingCrosses]:
    """Within the context the device gets tensors by ``send`` alone."""
    generator = torch.Generator
    with (  # the device has neither; the numbers that are drawn for it have no values
        mock.patch("torch.Generator", lambda device="cpu": generator()),
        mock.patch("torch.autocast", lambda *_, **__: nullcontext()),
        NothingCrosses() as seen,
    ):
        yield seen
