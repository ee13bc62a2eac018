"""Cells trained by two processes, each of which is this program; for the tests. Imports little: processes start soon.

``python shared_training.py FOLDER RANK`` trains every cell of ``FOLDER/cells.json`` as one of two processes and keeps
what came of it in ``FOLDER``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from benchmarks.config import load
from benchmarks.data.dataset import DataSet, Images, Source
from benchmarks.data.image_cache import Preparation
from benchmarks.data.image_folder import list_classes
from benchmarks.data.streaming import ImageStream, stream
from benchmarks.training.processes import ALONE, Processes, joined
from benchmarks.training.trainer import Trainer

EXAMPLES = 45  # two batches of 16 and one of 13, which does not divide
AUGMENTED = ["recipe.crop_padding=1", "recipe.flip=true", "recipe.randaugment=torchvision"]
SETTINGS = ["recipe.batch_size=16", "recipe.epochs=1", "recipe.drop_last=false", "recipe.learning_rate=0.05"]
SETTINGS += ['model.blocks="1,1"', *AUGMENTED]
VIT = ["model=vit_tiny", "model.depth=1", "model.dropout=0.1", "recipe.batch_size=16", "recipe.epochs=1"]
VIT += ["recipe.drop_last=true", "recipe.mixup_alpha=0.4", "recipe.clip_norm=1.0", *AUGMENTED]
SIZE = 16  # of streamed images
LOADERS = 2  # processes of each of several processes


def trainer(overrides: Sequence[str], processes: Processes = ALONE, accumulate: int = 1) -> Trainer:
    """The trainer of a cell on a few digits, or on streamed images for ``images=FOLDER``."""
    images = [text.removeprefix("images=") for text in overrides if text.startswith("images=")]
    base = VIT if "vit" in overrides else SETTINGS
    cell = load([*base, *(text for text in overrides if text != "vit" and not text.startswith("images="))])[0]
    source: Source = cell.dataset.build()
    if images:
        source.image_size = SIZE
        return Trainer(
            cell,
            source,
            _streamed(Path(images[0]), LOADERS if processes.count > 1 else 0),
            "cpu",
            processes=processes,
            accumulate=accumulate,
        )
    whole = source.load(Path())
    few = Images(whole.train.images[:EXAMPLES], whole.train.labels[:EXAMPLES])
    return Trainer(
        cell, source, replace(whole, train=few, test=few), "cpu", processes=processes, accumulate=accumulate
    )


def _streamed(folder: Path, loaders: int) -> DataSet:
    images = stream(list_classes(folder / "images"), folder / "cache", SIZE, Preparation(20), loaders=loaders)
    return DataSet(images, images, (0.5, 0.4, 0.3), (0.2, 0.3, 0.2))


def outcome(run: Trainer, path: Path | None = None) -> dict[str, Any]:
    """The loss of every step, the weights at the end, and the digests of the streamed images that came, as cut."""
    losses: list[float] = []
    read: list[str] = []
    step, batches = run.step, ImageStream.read

    def noted(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = step(x, y)
        losses.append(float(loss))
        return loss

    def counted(self: ImageStream, *arguments: Any, **options: Any) -> Iterator[Any]:
        for images, labels in batches(self, *arguments, **options):
            pairs = zip(images.numpy(), labels.tolist(), strict=True)
            read.extend(sha256(image.tobytes() + bytes([label])).hexdigest() for image, label in pairs)
            yield images, labels

    run.step, ImageStream.read = noted, counted  # type: ignore[method-assign, assignment]
    try:
        run.run(path)
    finally:
        ImageStream.read = batches  # type: ignore[method-assign]
    values = [*run.model.state_dict().values(), *(p.detach() for p in run.method.parameters())]
    return {"losses": losses, "weights": values, "curve": run.progress.curve, "read": read}


def interrupt(run: Trainer, steps: int, path: Path) -> None:
    """Train so many steps and leave a checkpoint, as a process does that is killed afterwards."""

    def stop(*_: object) -> None:
        if run.progress.step == steps:
            raise InterruptedError

    run.optimizer.register_step_pre_hook(stop)
    try:
        run.run(path, every=0)
    except InterruptedError:
        return
    raise AssertionError("the run has ended before")


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    cells = json.loads((folder / "cells.json").read_text())
    with joined(rank, 2, f"file://{folder}/meeting") as processes:
        for name, (overrides, accumulate) in cells.items():
            torch.save(outcome(trainer(overrides, processes, accumulate)), folder / f"{name}.{rank}.pt")
        for name in ("was_damp", "separate_sam"):
            path = folder / f"{name}.checkpoint.pt"
            overrides = cells[name][0]
            interrupt(trainer(overrides, processes), 2, path)
            if rank == 0:
                (folder / f"{name}.middle.pt").write_bytes(path.read_bytes())
            torch.save(outcome(trainer(overrides, processes), path), folder / f"{name}.resumed.{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
