"""A stand-in for CUDA graphs on the CPU: records the operators of a step and repeats them on the same memory.

Like a CUDA graph it freezes all that Python decides, gives its results in the tensors of the recording, and forbids
waiting for a number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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


def recorded_graph(
    run: Callable[[], Tensor], generators: Sequence[torch.Generator]
) -> tuple[Tensor, Callable[[], None]]:
    with _Recorder() as recorder:
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
