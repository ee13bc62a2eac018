"""A training step leaves nothing on the CPU and waits for nothing, on a device without values."""

from __future__ import annotations

from pathlib import Path

import pytest
from valueless_device import DEVICE, nothing_crosses

from benchmarks.config import load
from benchmarks.data.batches import epoch_batches
from benchmarks.data.dataset import DataSet, Images
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


@pytest.mark.parametrize("settings", CELLS.values(), ids=CELLS)
def test_a_step_stays_on_the_device(settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    cell, runtime = load(settings)
    source = cell.dataset.build()
    whole = source.load(Path())
    few = Images(whole.train.images[:40].to(DEVICE), whole.train.labels[:40].to(DEVICE))
    monkeypatch.setattr(WeightCopies, "_disproof", lambda *_: None)  # compares values, once for each shape
    trainer = Trainer(
        cell, source, DataSet(few, few, whole.mean, whole.std), DEVICE, accumulate=runtime.accumulate
    )
    trainer.model.train()
    with nothing_crosses() as seen:
        for x, y in epoch_batches(trainer.data, cell.recipe, cell.seed, 0, source.num_classes):
            loss = trainer.step(x, y)
            assert loss.device.type == DEVICE
    assert seen.sent
    assert all(p.grad is not None and p.grad.is_meta for p in trainer.model.parameters())
    assert trainer.progress.step == 2
