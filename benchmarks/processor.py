"""How this process uses the CPU. Changes no number. What each choice gives: docs/performance.md."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES = 2**30
"""Blocks up to this size, and so much free memory at the end of the heap, stay with the process."""


def set_up(threads: int) -> None:
    """Let torch use ``threads`` threads, and keep freed memory for the next step."""
    import torch

    torch.set_num_threads(threads)
    keep_memory()


def keep_memory() -> bool:
    """Have the C library reuse large blocks; True where it is glibc, which can be told so.

    By default it gives each freed block of more than 128 KiB back to the system, which then clears the pages that the
    next step's activations get. Processes that load images keep the default; only those that train call this.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return bool(
        library.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES) and library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    )
