"""What is common to all that may run out of memory."""

from __future__ import annotations

import gc

import torch

OF_CPU = ("can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the device or the machine has no memory left; torch has no class for the latter."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OF_CPU)


def release() -> None:
    """Give back what nothing refers to any more. Call it outside of the ``except`` block, whose error does."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
