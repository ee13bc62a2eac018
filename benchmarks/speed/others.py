"""Ratios to other people's programs: pytorch-optimizer's SAM and a plain DataLoader of torchvision's images."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.data.batches import epoch_batches
from benchmarks.data.dataset import DataSet
from benchmarks.speed.measure import Device, trainer

BATCHES = 2
"""Of the plain loader, whose images are made one by one."""


def sam(device: Device) -> dict[str, Any]:
    """``ratio``: the time of their step over that of ours, None where theirs is not installed."""
    row = {"what": "a step of pytorch-optimizer's SAM / of ours, M = 1, eager", "ratio": None}
    if importlib.util.find_spec("pytorch_optimizer") is None:
        return row
    ours, theirs = (
        trainer(device.name, device.sizes, "eager", "float32", "method=sam", "method.sub_batches=1")
        for _ in range(2)
    )
    x, y = next(epoch_batches(ours.data, ours.cell.recipe, 0, 0))
    optimizer: Any = importlib.import_module("pytorch_optimizer").SAM(
        theirs.model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9, nesterov=True
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(theirs.model(x), y)
        loss.backward()
        return loss

    def step() -> None:
        closure()
        optimizer.step(closure)

    return {**row, "ratio": device.ratio(step, lambda: ours.step(x, y))[0]}


class _OneByOne(Dataset[tuple[Tensor, int]]):
    """What torchvision's CIFAR10 gives to a loader: Pillow images through its transforms."""

    def __init__(self, data: DataSet, count: int) -> None:
        from torchvision import transforms as T

        images, labels = next(data.train.read(torch.arange(count) % len(data.train), count))
        self.pixels, self.labels = images.cpu().permute(0, 2, 3, 1).numpy(), labels.tolist()
        crop = [T.RandomCrop(32, padding=4), T.RandomHorizontalFlip()]
        self.transform = T.Compose([*crop, T.ToTensor(), T.Normalize(data.mean, data.std)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def loader(device: Device) -> dict[str, Any]:
    """Ours are the batches of an epoch, so that its order and random numbers are shared as in training."""
    run = trainer(device.name, device.sizes, "eager", "float32")
    size = run.cell.recipe.batch_size
    plain = _OneByOne(run.data, BATCHES * size)

    def theirs() -> None:
        for x, y in DataLoader(plain, batch_size=size, shuffle=True):
            x.to(device.name), y.to(device.name)

    def ours() -> None:
        for _ in epoch_batches(run.data, run.cell.recipe, 0, 0):
            pass

    ratio, _ = device.ratio(theirs, ours)
    return {
        "what": "a batch of a plain DataLoader in this process / of ours",
        "ratio": ratio * run.steps / BATCHES,
    }
