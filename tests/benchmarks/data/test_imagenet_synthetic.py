"""The made-up ImageNet: its files, and ImageNet's whole way over them, from the command line to a card."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks.config import load
from benchmarks.data.imagenet_synthetic import SyntheticImageNet
from benchmarks.errors import UserError

SMALL = ["size=16", "classes=4", "train_images=42", "test_images=9"]
DATASET = ["dataset=imagenet_synthetic", *(f"dataset.{setting}" for setting in SMALL)]


def source(cache: Path, **changed: Any) -> SyntheticImageNet:
    settings: dict[str, Any] = {"size": 16, "classes": 4, "train_images": 42, "test_images": 9, **changed}
    return SyntheticImageNet(cache=cache, **settings)


def files(made: SyntheticImageNet) -> dict[str, bytes]:
    return {str(path.relative_to(made.folder)): path.read_bytes() for path in made.folder.rglob("*.jpg")}


def test_the_files_are_jpegs_of_various_sizes_made_once_from_the_seed(tmp_path: Path) -> None:
    first = source(tmp_path / "a")
    data = first.load(Path())
    written = files(first)
    assert Counter(name.split("/")[0] for name in written) == {"train": 42, "val": 9}
    assert len(data.train) == 42 and len(data.test) == 9
    assert data.train.labels.bincount().tolist() == [11, 11, 10, 10]
    sizes = {Image.open(path).size for path in first.folder.rglob("*.jpg")}
    shorter = [min(size) for size in sizes]
    assert len(sizes) > 20 and min(shorter) < 18 < 30 < max(shorter)
    assert {width > height for width, height in sizes} == {True, False}
    assert {Image.open(path).format for path in first.folder.rglob("*.jpg")} == {"JPEG"}
    assert files(again := source(tmp_path / "b")) == {} and again.load(Path())
    assert files(again) == written
    times = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*.jpg")}
    source(tmp_path / "a").load(Path())
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*.jpg")} == times
    other = source(tmp_path / "a", images_seed=1)
    other.load(Path())
    assert other.folder != first.folder and files(other) != written


def test_making_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    whole = source(tmp_path)
    whole.load(Path())
    written = files(whole)
    gone = whole.folder / "train" / "class0002"
    gone.rename(whole.folder / "train" / ".class0002.partial-1")  # what a killed process leaves
    source(tmp_path).load(Path())
    found = files(whole)
    assert {name: content for name, content in found.items() if "partial" not in name} == written


def test_classes_can_be_told_apart(tmp_path: Path) -> None:
    data = source(tmp_path, train_images=80, test_images=40).load(Path())
    ((train, _),), ((test, _),) = (
        list(s.read(torch.arange(len(s)), len(s))) for s in (data.train, data.test)
    )
    x, y = data.normalise(train).flatten(1), data.normalise(test).flatten(1)
    means = torch.stack([x[data.train.labels == label].mean(0) for label in range(4)])
    assert (torch.cdist(y, means).argmin(1) == data.test.labels).float().mean() > 0.9


@pytest.mark.parametrize(
    "wrong", ["size=4", "classes=1", "train_images=3", "test_images=3", "stored_side=-2"]
)
def test_wrong_sizes_are_named(wrong: str) -> None:
    cell, _ = load([*DATASET, f"dataset.{wrong}"])
    with pytest.raises(UserError, match=f"dataset.{wrong}: "):
        cell.dataset.build()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"made-up images can't be written to .* choose another cache folder"):
        source(tmp_path / "file").load(Path())


CORRUPTED = "dataset.corruptions={gaussian_noise: [0.04, 0.08, 0.12, 0.15, 0.18]}"
RUNS = {
    "resnet_imagenet": [
        "dataset.size=32",
        "model=resnet50",
        "model.width=4",
        "recipe.epochs=6",
        "method=damp",
    ],
    "vit_imagenet_advanced": [
        *("model=vit_tiny", "model.patch=8", "recipe.epochs=2", "recipe.warmup_steps=2", "method=sam"),
        *("dataset.mean=[0.5,0.5,0.5]", "dataset.std=[0.5,0.5,0.5]"),
    ],
}


@pytest.mark.parametrize("recipe", RUNS)
def test_the_imagenet_recipes_run_from_files_to_card(weightaug: Any, tmp_path: Path, recipe: str) -> None:
    settings = [*DATASET, f"recipe={recipe}", *RUNS[recipe], "recipe.batch_size=16", CORRUPTED]
    done = weightaug("run", *settings, "evaluation.fgsm_epsilon=0.01", "wandb=disabled", "device=cpu")
    assert done.returncode == 0, done.stderr
    assert "of the training time waiting for images" in done.stderr
    card = json.loads(next((tmp_path / "runs" / "cards").glob("*.json")).read_text())
    assert 0 < card["cost"]["starvation"] < 1
    assert card["curve"][-1]["step"] == 2 * card["cell"]["recipe"]["epochs"]  # 42 images, 2 whole batches
    assert card["metrics"]["plain"]["clean"]["n"] == 9
    assert set(card["metrics"]["plain"]["corrupted"]) == {"gaussian_noise"}
    assert card["metrics"]["plain"]["attacks"].keys() == {"fgsm"}
