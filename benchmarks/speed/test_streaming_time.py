"""Streamed images a second, relative to a plain torchvision pipeline on the same files; by ``make bench``.

Random resized crops and flips of made-up photographs (dataset=imagenet_synthetic, 224 pixels), normalised; the plain
pipeline is ImageFolder, RandomResizedCrop, RandomHorizontalFlip, ToTensor, Normalize and a DataLoader. Both read files
that the system has in memory. What making the cache costs is told beside: it is done once, not in every epoch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.cell import Recipe
from benchmarks.data import loaders
from benchmarks.data.augmentation import Augmentation
from benchmarks.data.batches import epoch_batches
from benchmarks.data.dataset import DataSet
from benchmarks.data.imagenet_synthetic import SyntheticImageNet
from benchmarks.data.loaders import _Plan
from benchmarks.data.resampling import random_boxes
from benchmarks.data.streaming import ImageStream
from benchmarks.runtime import cores

IMAGES, BATCH, SIZE, ROUNDS = 256, 64, 224, 3
RECIPE = Recipe(batch_size=BATCH, flip=True, min_crop_area=0.08)
TRAINING_IMAGES = 1_281_167


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[SyntheticImageNet, DataSet, float]:
    """The files, their stream, and the seconds that decoding them into the cache took."""
    torch.set_num_threads(1)
    cache = tmp_path_factory.mktemp("cache")
    source = SyntheticImageNet(size=SIZE, classes=8, train_images=IMAGES, test_images=8, cache=cache)
    source._make()
    begun = time.perf_counter()
    data = source.load(Path())
    return source, data, time.perf_counter() - begun


def with_loaders(data: DataSet, processes: int) -> DataSet:
    train = data.train
    assert isinstance(train, ImageStream)
    stream = ImageStream(train.cache, train.labels, train.places, train.size, train.share, processes)
    return DataSet(stream, stream, data.mean, data.std)


def plain(source: SyntheticImageNet, processes: int) -> DataLoader[object]:
    crop = [transforms.RandomResizedCrop(SIZE, interpolation=transforms.InterpolationMode.BICUBIC)]
    rest = [
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.5,) * 3, (0.5,) * 3),
    ]
    files = ImageFolder(str(source.folder / "train"), transforms.Compose([*crop, *rest]))
    return DataLoader(files, BATCH, shuffle=True, num_workers=processes, persistent_workers=processes > 0)


def seconds(batches: Callable[[], Iterable[object]], clock: Callable[[], float]) -> float:
    begun = clock()
    for _ in batches():
        pass
    return clock() - begun


@pytest.mark.parametrize("processes", sorted({0, cores()}))
def test_against_torchvisions_folder(
    benchmark: BenchmarkFixture,
    capsys: pytest.CaptureFixture[str],
    made: tuple[SyntheticImageNet, DataSet, float],
    processes: int,
) -> None:
    """In this process alone by processor time, as other programs' load touches it least."""
    source, data, decoding = made
    streamed, folder = with_loaders(data, processes), plain(source, processes)
    clock = time.perf_counter if processes else time.process_time
    boxes = random_boxes(data.train.sizes, 0.08, torch.Generator().manual_seed(0))

    def whole() -> Iterator[object]:
        return epoch_batches(streamed, RECIPE, 0, 0)

    def read() -> Iterator[object]:
        return streamed.train.read(torch.arange(IMAGES), BATCH, boxes)

    passes = [[seconds(what, clock) for what in (lambda: folder, whole, read)] for _ in range(ROUNDS + 1)][1:]
    theirs, ours, reading = (min(times) for times in zip(*passes, strict=True))
    benchmark.group = "streaming"
    benchmark.pedantic(lambda: list(whole()), rounds=1)
    benchmark.extra_info["ratio"] = theirs / ours
    with capsys.disabled():
        where = f"{processes} loader processes" if processes else "this process alone"
        print(
            f"\n{where}: torchvision's folder / stream: {theirs / ours:.1f}, without flip and normalisation, ",
            end="",
        )
        print(f"which a GPU does, {theirs / reading:.1f}: {IMAGES / reading:.0f} images/s", end="")
        if not processes:
            print(f"; decoding once: {IMAGES / decoding:.0f} images/s with {cores()} processes", end="")


def test_starting_processes_and_drawing_an_epoch(
    benchmark: BenchmarkFixture,
    capsys: pytest.CaptureFixture[str],
    made: tuple[SyntheticImageNet, DataSet, float],
) -> None:
    """What an epoch costs before its first image: processes that are kept or started anew, and what is drawn."""
    streamed = with_loaders(made[1], cores())

    def first_batch(kept: bool) -> float:
        for _ in streamed.train.read(torch.arange(BATCH), BATCH):  # leaves its processes behind
            pass
        if not kept:
            loaders._kept = None
        begun = time.perf_counter()
        batches = streamed.train.read(torch.arange(BATCH), BATCH)
        next(batches)
        seconds = time.perf_counter() - begun
        for _ in batches:
            pass
        return seconds

    pairs = [(first_batch(True), first_batch(False)) for _ in range(ROUNDS)]
    kept, anew = (statistics.median(times) for times in zip(*pairs, strict=True))

    class Large:
        """As many images as ImageNet has, none of which is read."""

        sizes = torch.tensor([[256, 341]]).expand(TRAINING_IMAGES, 2)

        def __len__(self) -> int:
            return TRAINING_IMAGES

    def drawn() -> None:
        order = torch.randperm(TRAINING_IMAGES)
        recipe = Recipe(flip=True, min_crop_area=0.08, crop_boxes="official", randaugment="official")
        augmentation = Augmentation(recipe, Large(), order, 0, 0, torch.device("cpu"))  # type: ignore[arg-type]
        assert augmentation.boxes is not None
        plan = _Plan()
        plan.table, plan.batch_size = augmentation.boxes.numpy(), 2048
        assert sum(map(len, plan)) == TRAINING_IMAGES

    benchmark.group = "streaming"
    benchmark.pedantic(drawn, rounds=3)
    seconds = benchmark.stats.stats.min if benchmark.stats else float("nan")
    with capsys.disabled():
        print(
            f"\nfirst batch of {BATCH}: {kept:.2f} s with processes that are kept, {anew:.2f} s with new ones",
            end="",
        )
        print(f"; drawing an epoch of {TRAINING_IMAGES:,} images: {seconds:.1f} s", end="")
