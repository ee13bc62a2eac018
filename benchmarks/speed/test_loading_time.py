"""Time of loading and augmenting a CIFAR-10 batch, relative to a ResNet-18 training step and to torchvision's loader.

Run with ``make bench``. Crop with padding, flip and normalisation of a batch of 128, as the DAMP paper trains; an
epoch's own costs (order and random numbers) are spread over its batches. RandAugment and MixUp
are timed too, without a bar.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.cell import Recipe
from benchmarks.data.batches import epoch_batches, steps_per_epoch
from benchmarks.data.dataset import DataSet, Images
from benchmarks.models import resnet

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
STEPS = 30 if GPU else 1
IMAGES = 50_000 if GPU else 10_000  # what an epoch draws grows with its batches
BAR = 0.03
RECIPES = {
    "crop and flip": Recipe(crop_padding=4, flip=True),
    "random resized crop and flip": Recipe(min_crop_area=0.08, flip=True),
    "crop, flip and RandAugment": Recipe(crop_padding=4, flip=True, randaugment="torchvision"),
    "crop, flip and MixUp": Recipe(crop_padding=4, flip=True, mixup_lambda=0.8),
}


@pytest.fixture(scope="module")
def data() -> DataSet:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (IMAGES, 3, 32, 32), generator=draw, dtype=torch.uint8)
    images = Images(pixels, torch.arange(IMAGES) % 10)
    return DataSet(images, images, MEAN, STD).to(DEVICE)


def clock() -> float:
    """Wall time on a GPU; on a CPU processor time of one thread, as other programs' load touches it least."""
    if GPU:
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def seconds_a_batch(batches: Callable[[], Iterator[object]], count: int) -> float:
    """One batch's share of a pass over all batches, after a warm-up: the least of three."""
    torch.set_num_threads(1)
    next(batches())
    passes = []
    for _ in range(3):
        start = clock()
        for _ in batches():
            pass
        passes.append((clock() - start) / count)
    return min(passes)


@pytest.fixture(scope="module")
def seconds_a_step() -> float:
    """A plain SGD step of the papers' ResNet-18 on a batch of 128."""
    torch.set_num_threads(1)
    model = resnet.build(num_classes=10, in_channels=3, image_size=32).to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True)
    x, y = torch.randn(128, 3, 32, 32, device=DEVICE), torch.arange(128, device=DEVICE) % 10

    def step() -> float:
        start = clock()
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        return clock() - start

    step()
    return statistics.median(step() for _ in range(STEPS))


@pytest.mark.parametrize("name", RECIPES)
def test_loading(
    benchmark: BenchmarkFixture,
    capsys: pytest.CaptureFixture[str],
    data: DataSet,
    seconds_a_step: float,
    name: str,
) -> None:
    recipe = RECIPES[name]

    def batches() -> Iterator[object]:
        return epoch_batches(data, recipe, 0, 0, classes=10)

    ratio = seconds_a_batch(batches, steps_per_epoch(IMAGES, recipe)) / seconds_a_step
    benchmark.group = "loading a CIFAR-10 batch"
    benchmark.pedantic(lambda: next(batches()), rounds=5)
    benchmark.extra_info["ratio"] = ratio
    with capsys.disabled():
        print(f"\n{name} / ResNet-18 training step: {ratio:.2%}", end="")
        if name == "crop and flip":
            print(f" (bar {BAR:.0%}, {'held' if ratio <= BAR else 'missed'})", end="")


class _Reference(Dataset[tuple[Tensor, int]]):
    """What torchvision's CIFAR10 gives to a loader: Pillow images through its transforms, one by one."""

    def __init__(self, data: DataSet, count: int) -> None:
        images, labels = next(data.train.read(torch.arange(count), count))
        self.pixels, self.labels = images.cpu().permute(0, 2, 3, 1).numpy(), labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def test_against_torchvisions_loader(
    benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str], data: DataSet
) -> None:
    """In this process, so that the ratio is one of work and not of how many processes there are."""
    count = 20
    loader = DataLoader(_Reference(data, count * 128), batch_size=128, shuffle=True)
    theirs = seconds_a_batch(lambda: iter(loader), count)
    recipe = RECIPES["crop and flip"]
    ours = seconds_a_batch(lambda: epoch_batches(data, recipe, 0, 0), steps_per_epoch(IMAGES, recipe))
    benchmark.group = "loading a CIFAR-10 batch"
    benchmark.pedantic(lambda: next(iter(loader)), rounds=3)
    benchmark.extra_info["ratio"] = theirs / ours
    with capsys.disabled():
        print(f"\ntorchvision's loader / crop and flip: {theirs / ours:.1f}", end="")
