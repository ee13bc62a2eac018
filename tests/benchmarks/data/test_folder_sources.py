"""TinyImageNet and ImageNet: what is read of small folders laid out like theirs."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from declared_files import Declare, declared, pixels
from PIL import Image
from web_server import Web

from benchmarks.data.image_folder import list_classes
from benchmarks.data.imagenet import ImageNet, imagenet_classes
from benchmarks.data.tinyimagenet import TinyImageNet
from benchmarks.errors import UserError


def _jpeg(seed: int, size: int = 64, mode: str = "RGB") -> bytes:
    packed = io.BytesIO()
    Image.fromarray(pixels(seed, size, size, 3)).convert(mode).save(packed, "JPEG")
    return packed.getvalue()


def _tiny(declare: Declare, web: Web, monkeypatch: pytest.MonkeyPatch, size: int = 64) -> dict[str, int]:
    """A small archive laid out like TinyImageNet's, with three classes; returns the label of each validation image."""
    monkeypatch.setattr(TinyImageNet, "num_classes", 3)
    monkeypatch.setattr("benchmarks.data.tinyimagenet.PER_CLASS", {"train": 2, "val": 2})
    wnids, packed = ["n03", "n01", "n02"], io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(6):
            wnid = wnids[number % 3]
            mode = "L" if number == 4 else "RGB"  # as in the true one, some are grey
            image = f"tiny-imagenet-200/train/{wnid}/images/{wnid}_{number}.JPEG"
            archive.writestr(image, _jpeg(number, size, mode))
            archive.writestr(f"tiny-imagenet-200/val/images/val_{number}.JPEG", _jpeg(10 + number, size))
        for wnid in wnids:
            archive.writestr(f"tiny-imagenet-200/train/{wnid}/{wnid}_boxes.txt", "0 0 1 1")
        rows = [f"val_{number}.JPEG\t{wnids[number % 3]}\t0\t0\t1\t1\n" for number in range(6)]
        archive.writestr("tiny-imagenet-200/val/val_annotations.txt", "".join(rows))
    web.files["tiny.zip"] = packed.getvalue()
    contents = {"tiny-imagenet-200/train": 6, "tiny-imagenet-200/val": 6}
    declare("tinyimagenet", downloads=[declared("tiny.zip", web.files["tiny.zip"], contents=contents)])
    return {f"val_{number}.JPEG": sorted(wnids).index(wnids[number % 3]) for number in range(6)}


def test_tinyimagenet(declare: Declare, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = _tiny(declare, web, monkeypatch)
    source = TinyImageNet(cache=tmp_path / "cache")
    data = source.load(tmp_path, download=True)
    assert data.train.images.shape == (6, 3, 64, 64)
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.test.labels.tolist() == [labels[f"val_{number}.JPEG"] for number in range(6)]
    folder = tmp_path / "tiny-imagenet-200"
    with Image.open(folder / "val/images/val_5.JPEG") as image:
        assert np.array_equal(data.test.images[5].permute(1, 2, 0).numpy(), np.asarray(image))
    assert data.mean == pytest.approx([0.48031, 0.44814, 0.39763], abs=1e-4)
    monkeypatch.setattr("benchmarks.data.decode._pixels", None)  # decoded once, then kept
    assert torch.equal(source.load(tmp_path).train.images, data.train.images)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda f: (f / "train/n01/images/n01_1.JPEG").unlink(),
            r"5 images of 3 classes, expected 2 of each of 3",
        ),
        (
            lambda f: (f / "train/n01/images/n01_1.JPEG").write_bytes(_jpeg(0)[:300]),
            "1 of 6 images can't be used: n01/",
        ),
        (
            lambda f: (f / "train/n01/images/n01_1.JPEG").write_bytes(_jpeg(0, 32)),
            "32x32 pixels among 64x64|64x64",
        ),
        (lambda f: shutil.rmtree(f / "train/n01/images"), "no images in the class folder n01"),
        (lambda f: (f / "val/val_annotations.txt").unlink(), "val_annotations.txt can't be read"),
        (lambda f: (f / "val/val_annotations.txt").write_text("val_0.JPEG\tn9\n"), "has no training images"),
    ],
    ids=["lost image", "cut image", "small image", "empty class", "lost list", "wrong list"],
)
def test_damaged_tinyimagenet_is_named(
    declare: Declare, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any, said: str
) -> None:
    _tiny(declare, web, monkeypatch)
    source = TinyImageNet(cache=tmp_path / "cache")
    source.load(tmp_path, download=True)
    damage(tmp_path / "tiny-imagenet-200")
    with pytest.raises(UserError, match=said):
        source.load(tmp_path)


def test_imagenet_is_listed_by_sorted_class(tmp_path: Path) -> None:
    classes = imagenet_classes()
    assert len(classes) == 1000
    assert list(classes) == sorted(classes)
    assert {len(imagenet_classes(subset)) for subset in "ar"} == {200}
    for wnid in classes:
        (tmp_path / "imagenet/val" / wnid).mkdir(parents=True)
        (tmp_path / "imagenet/val" / wnid / f"{wnid}.JPEG").touch()
    listing = ImageNet().listing(tmp_path, "val")
    assert listing.labels.tolist() == list(range(1000))
    assert listing.files[7] == f"{classes[7]}/{classes[7]}.JPEG"
    shutil.rmtree(tmp_path / "imagenet/val" / classes[7])
    with pytest.raises(UserError, match=f"999 class folders, expected 1000; {classes[7]} missing"):
        ImageNet().listing(tmp_path, "val")


def test_class_folders_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be read: No such file"):
        list_classes(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no class folders"):
        list_classes(tmp_path)
