"""A stand-in for CUDA graphs on the CPU: records the operators of a step and repeats them on the same memory.

Like a CUDA graph it freezes all that Python decides, gives its results in the tensors of the recording, and forbids
waiting for a number. As on a GPU, optimizers know that they are captured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, result))
        return result


HEALTH_CHECK = next(
    name for name in vars(torch.optim.Optimizer) if name.endswith("graph_capture_health_check")
)
"""Torch's own, which looks for a GPU; its name has changed."""


def _refuse_unless_capturable(optimizer: torch.optim.Optimizer) -> None:
    if not all(group["capturable"] for group in optimizer.param_groups):
        raise RuntimeError("Attempting CUDA graph capture of step() but param_groups' capturable is False.")


def recorded_graph(
    run: Callable[[], Tensor], generators: Sequence[torch.Generator]
) -> tuple[Tensor, Callable[[], None]]:
    with (
        mock.patch("torch.optim.Optimizer." + HEALTH_CHECK, _refuse_unless_capturable),
        _Recorder() as recorder,
    ):
        result = run()

    @torch.no_grad()
    def replay() -> None:
        for func, args, kwargs, old in recorder.calls:
            if any(value.alias_info and not value.alias_info.is_write for value in func._schema.returns):
                continue  # a view of memory that is filled anew already
            new = func(*args, **kwargs)
            for before, after in zip(tree_leaves(old), tree_leaves(new), strict=True):
                if isinstance(before, Tensor) and before is not after:
                    before.copy_(after)

    return result, replay
