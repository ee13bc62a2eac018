"""A person's own images and labels in one file: .npz, .safetensors or .pt; and what bad files get."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import CommandLine
from safetensors.torch import save_file

from benchmarks.data.own import Tensors
from benchmarks.errors import UserError

QUICK = ("recipe.epochs=1", "recipe.batch_size=8", "wandb=disabled", "device=cpu", "threads=1")
SIDE = 8


def _tensors(count: int = 30, channels: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, channels, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    return {"images": images, "labels": torch.arange(count) % 3}


def _save(path: Path, tensors: dict[str, Any]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **{name: np.asarray(value) for name, value in tensors.items()})
    elif path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    else:
        torch.save(tensors, path)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
def test_a_file_of_tensors_is_a_data_set(tmp_path: Path, suffix: str) -> None:
    tensors = _tensors()
    source = Tensors(path=str(_save(tmp_path / f"mine{suffix}", tensors)), cache=tmp_path / "cache")
    assert (source.num_classes, source.in_channels, source.image_size) == (3, 3, SIDE)
    data = source.load(tmp_path)
    assert (len(data.train), len(data.test)) == (24, 6)
    split = {f"{part}_{k}": v for part, n in (("train", 30), ("test", 12)) for k, v in _tensors(n).items()}
    data = Tensors(path=str(_save(tmp_path / f"split{suffix}", split)), cache=tmp_path / "cache").load(
        tmp_path
    )
    assert torch.equal(data.train.images, split["train_images"])
    assert torch.equal(data.test.labels, split["test_labels"])


def test_other_ways_to_store_the_same_images(tmp_path: Path) -> None:
    tensors = _tensors()
    ways = {
        "first": tensors["images"],
        "last": tensors["images"].permute(0, 2, 3, 1),
        "floats": tensors["images"].double() / 255,
    }
    images = [
        Tensors(
            path=str(_save(tmp_path / f"{name}.npz", {**tensors, "images": value})), cache=tmp_path / "cache"
        )
        .load(tmp_path)
        .train.images
        for name, value in ways.items()
    ]
    assert all(torch.equal(images[0], other) for other in images[1:])
    grey = {**tensors, "images": tensors["images"][:, 0]}
    source = Tensors(path=str(_save(tmp_path / "grey.npz", grey)), cache=tmp_path / "cache")
    assert source.in_channels == 1


def test_a_run_on_a_tensor_file_by_config_alone(weightaug: CommandLine, tmp_path: Path) -> None:
    _save(tmp_path / "mine.npz", _tensors())
    first = weightaug("run", "dataset=tensors", "dataset.path=mine.npz", *QUICK)
    assert first.returncode == 0, first.stderr
    os.utime(tmp_path / "mine.npz", (1, 1))
    assert "finished before" in weightaug("run", "dataset=tensors", "dataset.path=mine.npz", *QUICK).stderr


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("touched"),))


def _with(**changes: Any) -> dict[str, Any]:
    return {**_tensors(), **changes}


NAN = _tensors()["images"].float() / 255
NAN[4, 0, 0, 0] = float("nan")
BAD_TENSORS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "cut npz": (
        "a.npz",
        lambda p: p.write_bytes(_save(p, _tensors()).read_bytes()[:900]),
        "damaged or of another",
    ),
    "cut pt": (
        "a.pt",
        lambda p: p.write_bytes(_save(p, _tensors()).read_bytes()[:900]),
        "damaged or of another",
    ),
    "cut safetensors": (
        "a.safetensors",
        lambda p: p.write_bytes(_save(p, _tensors()).read_bytes()[:900]),
        "damaged or of another",
    ),
    "empty": ("a.npz", lambda p: p.write_bytes(b""), "damaged or of another"),
    "code in pt": ("a.pt", lambda p: torch.save({"images": Harmful()}, p), "damaged or of another"),
    "code in npz": ("a.npz", lambda p: np.savez(p, images=np.array([Harmful()])), "damaged or of another"),
    "a list": ("a.pt", lambda p: torch.save([1], p), "must hold named tensors, not list"),
    "suffix": ("a.csv", lambda p: p.write_text("1,2"), "only .npz, .safetensors, .pt, .pth files"),
    "no file": ("b.npz", lambda p: None, "there is no such file"),
    "no labels": (
        "a.npz",
        lambda p: np.savez(p, images=np.zeros(3)),
        "has no labels; it needs images and labels",
    ),
    "half split": (
        "a.npz",
        lambda p: np.savez(p, train_images=np.zeros(3)),
        "has no train_labels, test_images",
    ),
    "nan": ("a.npz", lambda p: _save(p, _with(images=NAN)), "1 of 30 have values that are NaN or infinite"),
    "scale": (
        "a.npz",
        lambda p: _save(p, _with(images=NAN.nan_to_num() * 255)),
        "floats must be from 0 to 1",
    ),
    "whole numbers": (
        "a.npz",
        lambda p: _save(p, _with(images=_tensors()["images"].int())),
        "(uint8) or floats",
    ),
    "oblong": (
        "a.npz",
        lambda p: _save(p, _with(images=_tensors()["images"][..., :5])),
        "square images with 1 or 3",
    ),
    "axes": (
        "a.npz",
        lambda p: _save(p, _with(images=torch.zeros(30, 5))),
        "images have 3 axes (grey) or 4, not 2",
    ),
    "negative": (
        "a.npz",
        lambda p: _save(p, _with(labels=torch.arange(30) % 3 - 1)),
        "out of range: -1 is below 0",
    ),
    "gap": ("a.npz", lambda p: _save(p, _with(labels=torch.arange(30) % 3 * 2)), "labels out of range"),
    "floats": ("a.npz", lambda p: _save(p, _with(labels=torch.rand(30))), "whole numbers [N] are needed"),
    "count": ("a.npz", lambda p: _save(p, _with(labels=torch.arange(29) % 3)), "30 images and 29 labels"),
    "none": ("a.npz", lambda p: _save(p, {k: v[:0] for k, v in _tensors().items()}), "0 images and 0 labels"),
    "strange test labels": (
        "a.npz",
        lambda p: _save(
            p,
            {
                **{f"{x}_{k}": v for x in ("train", "test") for k, v in _tensors().items()},
                "test_labels": torch.arange(30) % 4,
            },
        ),
        "labels out of range",
    ),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_bad_tensor_files_are_named_in_one_line(weightaug: CommandLine, tmp_path: Path, case: str) -> None:
    name, make, said = BAD_TENSORS[case]
    make(tmp_path / name)
    done = weightaug("run", "dataset=tensors", f"dataset.path={name}", *QUICK)
    assert done.returncode == 2, done.stdout
    assert done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ("text", "images is no tensor but str"),
        (None, "images is no tensor but NoneType"),
        (torch.zeros(4, 3, 4, 4).to_sparse(), "images is sparse; store it as a dense tensor"),
    ],
)
def test_what_is_no_dense_tensor_is_named(images: Any, said: str, tmp_path: Path) -> None:
    torch.save({"images": images, "labels": torch.arange(4) % 2}, tmp_path / "odd.pt")
    with pytest.raises(UserError, match=said):
        Tensors(path=str(tmp_path / "odd.pt"), cache=tmp_path / "cache")


def test_views_of_one_tensor_are_kept_apart(tmp_path: Path) -> None:
    images, labels = torch.randint(0, 256, (12, 3, 4, 4), dtype=torch.uint8), torch.arange(12) % 2
    split = {
        "train_images": images,
        "train_labels": labels,
        "test_images": images[4:8],
        "test_labels": labels[4:8],
    }
    torch.save(split, tmp_path / "views.pt")
    for _ in range(2):  # made, then read back
        data = Tensors(path=str(tmp_path / "views.pt"), cache=tmp_path / "cache").load(tmp_path)
        assert torch.equal(data.test.images, images[4:8])
        assert torch.equal(data.train.labels, labels)
