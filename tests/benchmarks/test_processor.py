"""Settings of the CPU change no number."""

from __future__ import annotations

import platform

import torch

from benchmarks import processor


def test_memory_is_kept_and_threads_are_set() -> None:
    before = torch.get_num_threads()
    a = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
    expected = a @ a
    try:
        processor.set_up(1)
        assert torch.get_num_threads() == 1
        assert torch.equal(a @ a, expected)
    finally:
        torch.set_num_threads(before)
    assert processor.keep_memory() == (platform.libc_ver()[0] == "glibc")
