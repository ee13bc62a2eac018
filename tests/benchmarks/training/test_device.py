"""A training step leaves nothing on the CPU and waits for nothing, on a device without values."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from valueless_device import DEVICE, nothing_crosses

from benchmarks.config import load
from benchmarks.data.batches import epoch_batches
from benchmarks.data.dataset import DataSet, Images
from benchmarks.training.engine import _speed_up
from benchmarks.training.graph import GraphStep
from benchmarks.training.trainer import Trainer
from weightaug.copies import WeightCopies

SMALL = ["recipe.batch_size=16"]
VIT = ["model=vit_tiny", "recipe=vit_smoke", *SMALL]
RESNET = ["model.width=8", *SMALL]
CELLS = {
    "sgd": RESNET,
    "dropout": [*RESNET, "method=dropout", "method.p=0.1"],
    "corrupted_sgd": [*RESNET, "method=corrupted_sgd"],
    "sam": [*RESNET, "method=sam", "method.sub_batches=4"],
    "sam of 7 and 6": [
        *RESNET,
        "recipe.batch_size=20",
        "method=sam",
        "method.sub_batches=3",
        "method.epsilon=0.1",
    ],
    "asam": [*RESNET, "method=asam", "method.sub_batches=4"],
    "asam of one": [*RESNET, "method=asam", "method.sub_batches=1"],
    "damp": [*RESNET, "method=damp", "method.sub_batches=4"],
    "daap": [*RESNET, "method=daap", "method.sub_batches=4"],
    "was": ["model=resnet_tiny_was", *SMALL, "method=was"],
    "was_sam": ["model=resnet_tiny_was", *SMALL, "method=was_sam"],
    "was_damp": ["model=resnet_tiny_was", *SMALL, "method=was_damp"],
    "in two parts": [
        *RESNET,
        "method=sam",
        "method.sub_batches=4",
        "accumulate=2",
        "method.batch_norm=separate",
    ],
    "every augmentation": [
        *VIT,
        *(
            "recipe.crop_padding=1",
            "recipe.flip=true",
            "recipe.randaugment=official",
            "recipe.mixup_lambda=0.8",
        ),
        *("recipe.clip_norm=1", "recipe.min_crop_area=0.05", "recipe.crop_padding=0"),
    ],
    "moved crops": [*RESNET, "recipe.crop_padding=1"],
    "bf16": [*RESNET, "method=damp", "method.sub_batches=4", "recipe.precision=bf16"],
    "vit, sam": [*VIT, "method=sam", "method.sub_batches=4"],
    "vit, damp": [*VIT, "method=damp", "method.sub_batches=4"],
}


def made(settings: list[str], monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """A cell's trainer on the device, with 40 images."""
    cell, runtime = load(settings)
    source = cell.dataset.build()
    whole = source.load(Path())
    few = Images(whole.train.images[:40].to(DEVICE), whole.train.labels[:40].to(DEVICE))
    monkeypatch.setattr(WeightCopies, "_disproof", lambda *_: None)  # compares values, once for each shape
    data = DataSet(few, few, whole.mean, whole.std)
    trainer = Trainer(cell, source, data, DEVICE, accumulate=runtime.accumulate)
    trainer.model.train()
    return trainer


@pytest.mark.parametrize("settings", CELLS.values(), ids=CELLS)
def test_a_step_stays_on_the_device(settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = made(settings, monkeypatch)
    recipe, classes = trainer.cell.recipe, trainer.source.num_classes
    with nothing_crosses() as seen:
        for x, y in epoch_batches(trainer.data, recipe, trainer.cell.seed, 0, classes):
            loss = trainer.step(x, y)
            assert loss.device.type == DEVICE
    assert seen.sent
    assert all(p.grad is not None and p.grad.is_meta for p in trainer.model.parameters())
    assert trainer.progress.step == 2


@pytest.mark.parametrize("name", ["damp", "sam", "vit, sam", "every augmentation"])
def test_a_step_that_becomes_a_graph_stays_on_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the optimizer's fused kernels and learning rates in tensors, after eager steps, as in a rehearsal."""
    for kind in (torch.optim.SGD, torch.optim.Adam):
        monkeypatch.setattr(
            sys.modules[kind.__module__], "_device_dtype_check_for_fused", lambda *_, **__: None
        )
    trainer = made(CELLS[name], monkeypatch)
    batches = epoch_batches(trainer.data, trainer.cell.recipe, 0, 0, trainer.source.num_classes)
    with nothing_crosses():
        x, y = next(batches)
        trainer.step(x, y)
    _speed_up(trainer.engine.step, x)
    for parameter, state in trainer.optimizer.state.items():
        assert all(value.device == parameter.device for value in state.values() if value is not None)
    with nothing_crosses():
        graph = GraphStep(trainer.engine.step, x, y, lambda run, _: (run(), lambda: None))
        assert graph(*next(batches)).is_meta
