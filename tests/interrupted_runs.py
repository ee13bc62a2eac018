"""Small cells that are killed by SIGKILL again and again, each life in a process of its own; for the tests.

As a program, ``python interrupted_runs.py METHOD ...`` prints a JSON object: what of each method's run differs from
that of an uninterrupted one, and how often it was killed and continued. ``"stream METHOD"``: on streamed images.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.config import load
from benchmarks.data.dataset import DataSet, Images, Source
from benchmarks.data.streaming import ImageStream
from benchmarks.evaluation.evaluate import EvaluationImages, evaluate
from benchmarks.training.trainer import Trainer

SETTINGS = [
    "recipe.epochs=2",
    "recipe.batch_size=16",
    "recipe.crop_padding=1",
    "recipe.flip=true",
    "recipe.randaugment=torchvision",
    "recipe.mixup_alpha=0.4",
    "dataset.corruptions={gaussian_noise: [0.08, 0.12, 0.18, 0.26, 0.38]}",
]
STEPS = 8  # of a run: 64 images, 2 epochs
PLACES = ("step", "write", "rename 1", "rename 2", "rename 3")
"""Where in a step and in the checkpoint after it: before the optimizer, with the file written, before each renaming."""


STREAM = [
    *("dataset=imagenet_synthetic", "dataset.size=16", "dataset.classes=4", "dataset.train_images=70"),
    *(
        "dataset.test_images=8",
        "recipe.crop_padding=0",
        "recipe.min_crop_area=0.1",
        "recipe.crop_boxes=official",
    ),
    *(
        "recipe.randaugment=official",
        "recipe.mixup_alpha=null",
        "recipe.mixup_lambda=0.8",
        "model=resnet_tiny",
    ),
]
LOADERS = 2


def streamed_trainer(cache: Path, *overrides: str) -> Trainer:
    """A trainer of a cell whose images several processes read from files, 4 batches an epoch."""
    cell = load([*SETTINGS, *STREAM, *overrides])[0]
    source: Source = cell.dataset.build({"cache": cache})
    data = source.load(Path())
    assert isinstance(data.train, ImageStream)
    return Trainer(cell, source, replace(data, train=replace(data.train, loaders=LOADERS)), "cpu")


def small_trainer(*overrides: str) -> Trainer:
    """A trainer of a cell on 64 digits."""
    cell = load([*SETTINGS, *overrides])[0]
    source: Source = cell.dataset.build()
    whole = source.load(Path())
    few = Images(whole.train.images[:64], whole.train.labels[:64])
    return Trainer(cell, source, DataSet(few, few, whole.mean, whole.std), "cpu")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill(trainer: Trainer, step: int, place: str) -> None:
    """Let the process die at ``place`` of the step after ``step`` others."""
    if place == "step":
        trainer.optimizer.register_step_pre_hook(lambda *_: die() if trainer.progress.step == step else None)
        return
    done = trainer.optimizer.register_step_post_hook(
        lambda *_: arm() if trainer.progress.step == step else None
    )
    kind, _, number = place.partition(" ")

    def arm() -> None:
        done.remove()
        if kind == "write":
            os.fsync = lambda handle: die()
            return
        replace, calls = Path.replace, []

        def counted(self: Path, target: Path) -> Path:
            calls.append(target)
            if len(calls) == int(number):
                die()
            return replace(self, target)

        Path.replace = counted  # type: ignore[method-assign, assignment]


def live(method: str, folder: Path, result: Path, killed_at: tuple[int, str] | None) -> None:
    """One life of a run: trains on from the checkpoint in ``folder``, to the end unless it is killed.

    Args:
        method: its name; ``stream`` before it and a space: on images that are streamed.
    """
    torch.set_num_threads(1)
    name = f"method={method.removeprefix('stream ')}"
    streamed = method.startswith("stream ")
    trainer = streamed_trainer(folder.parent, name) if streamed else small_trainer(name)
    if killed_at:
        kill(trainer, *killed_at)
    trainer.run(folder / "checkpoint.pt", every=0)
    metrics = evaluate(
        trainer.cell, trainer.method, trainer.data, EvaluationImages.make(trainer.source, trainer.data)
    )
    weights = [*trainer.model.state_dict().values(), *trainer.method.parameters()]
    ended = {"metrics": metrics, "curve": trainer.progress.curve, "resumed": trainer.progress.resumed}
    torch.save({**ended, "weights": [w.detach() for w in weights]}, result)


def in_a_process(function: Callable[[], None]) -> int:
    """How it ended: 0, or minus the number of the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def compare(method: str, folder: Path, kills: int = 3) -> dict[str, Any]:
    """Run ``method`` once as it is and once with ``kills`` violent deaths."""
    results = folder / "whole.pt", folder / "pieces.pt"
    for name in ("whole", "pieces"):
        (folder / name).mkdir()
    codes = [in_a_process(lambda: live(method, folder / "whole", results[0], None))]
    chance = random.Random(method)
    deaths = sorted((chance.randrange(STEPS), chance.choice(PLACES)) for _ in range(kills))
    for death in [*deaths, None]:
        codes.append(in_a_process(lambda death=death: live(method, folder / "pieces", results[1], death)))
    whole, pieces = (torch.load(path) for path in results)
    differing = [key for key in ("metrics", "curve") if whole[key] != pieces[key]]
    if not all(torch.equal(a, b) for a, b in zip(whole["weights"], pieces["weights"], strict=True)):
        differing.append("weights")
    return {"codes": codes, "deaths": deaths, "differing": differing, "resumed": pieces["resumed"]}


def main() -> None:
    torch.set_num_threads(1)
    for method in ("was_sam", "corrupted_sgd"):  # what these import, each life would import again
        with tempfile.TemporaryDirectory() as folder:
            live(method, Path(folder), Path(folder) / "result.pt", None)
    found = {}
    for method in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            found[method] = compare(method, Path(folder))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
