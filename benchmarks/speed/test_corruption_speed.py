"""Time to make the whole 19 x 5 set, relative to the package imagecorruptions on the same core; run by ``make bench``.

Both take the parameters of ImageNet-C, which are the package's own. The package works image by image, so it gets a few
images, and the times are those of one image. The two alternate, so that a change of the machine's load meets both.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.data.corruptions import SEVERITIES, corrupt, read_table

BAR = 10  # for the whole set at 32 x 32
PAIRS = 3
IMAGES = {32: 42, 224: 1}  # of this suite, at each size; the package gets one
WITHOUT = {32: (), 224: ("glass_blur",)}  # alone 20 s an image in the package, most of the time of all others


def photographs(size: int, count: int) -> Tensor:
    """uint8 [count, 3, size, size], parts of scikit-learn's sample photograph."""
    from sklearn.datasets import load_sample_image

    whole = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)
    corners = [(7 * i % (427 - size), 11 * i % (640 - size)) for i in range(count)]
    return torch.stack([whole[:, top : top + size, left : left + size] for top, left in corners])


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one thread, which other programs' load touches least."""
    start = time.process_time()
    work()
    return time.process_time() - start


def ours(images: Tensor, names: list[str]) -> None:
    table = read_table("imagenet")
    for name in names:
        for severity in SEVERITIES:
            corrupt(images, name, severity, table)


if importlib.util.find_spec("imagecorruptions"):
    as_shipped = importlib.import_module("reference_corruptions").as_shipped

    def theirs(image: np.ndarray, names: list[str]) -> None:
        for name in names:
            for severity in SEVERITIES:
                as_shipped(name, severity, image)

    @pytest.mark.parametrize("size", IMAGES)
    def test_nineteen_types(
        benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str], size: int
    ) -> None:
        import cv2

        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        names = [name for name in read_table("imagenet") if name not in WITHOUT[size]]
        images = photographs(size, IMAGES[size])
        one = images[0].permute(1, 2, 0).contiguous().numpy()
        ours(images[:1], names)  # makes the tables of the noises, reads the photographs of frost
        ratio = statistics.median(
            seconds(lambda: theirs(one, names)) * len(images) / seconds(lambda: ours(images, names))
            for _ in range(PAIRS)
        )
        benchmark.group = "corruptions"
        benchmark.extra_info["ratio"] = ratio
        benchmark.pedantic(lambda: ours(images, names), rounds=1)
        left_out = f" without {', '.join(WITHOUT[size])}" if WITHOUT[size] else ""
        bar = "" if WITHOUT[size] else f" (bar {BAR}, {'held' if ratio >= BAR else 'missed'})"
        with capsys.disabled():
            print(f"\nimagecorruptions / corrupt, {size} x {size}{left_out}: {ratio:.1f}{bar}", end="")
