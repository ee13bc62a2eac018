"""A person's own images: from a folder or a file to a finished cell, by config alone; and what bad images get."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import CommandLine
from PIL import Image

from benchmarks.config import load
from benchmarks.data.own import Folder, Tensors
from benchmarks.errors import UserError

QUICK = ("recipe.epochs=1", "recipe.batch_size=8", "wandb=disabled", "device=cpu", "threads=1")
SIDE = 8


def _image(seed: int, side: int = SIDE, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def _class_folders(
    folder: Path, per_class: int = 10, classes: tuple[str, ...] = ("cat", "dog", "owl")
) -> Path:
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            _image(1000 * label + number).save(folder / name / f"{number:02}.png")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return _class_folders(tmp_path / "photos")


def test_a_folder_is_a_data_set(photos: Path, tmp_path: Path) -> None:
    source = Folder(path=str(photos), cache=tmp_path / "cache")
    assert (source.num_classes, source.in_channels, source.image_size) == (3, 3, SIDE)
    data = source.load(tmp_path)
    assert data.train.labels.bincount().tolist() == [8, 8, 8]
    assert data.test.labels.bincount().tolist() == [2, 2, 2]
    pixels = data.train.images.double() / 255
    assert data.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert data.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist())
    originals = {np.asarray(Image.open(path)).tobytes() for path in photos.rglob("*.png")}
    assert {
        i.permute(1, 2, 0).numpy().tobytes() for i in (*data.train.images, *data.test.images)
    } == originals


@pytest.mark.parametrize("test", ["test", "val"])
def test_train_and_test_folders(tmp_path: Path, test: str) -> None:
    _class_folders(tmp_path / "photos/train", 4)
    _class_folders(tmp_path / f"photos/{test}", 2)
    data = Folder(path=str(tmp_path / "photos"), cache=tmp_path / "cache").load(tmp_path)
    assert (len(data.train), len(data.test)) == (12, 6)


def test_a_run_on_own_photos_by_config_alone(weightaug: CommandLine, photos: Path, tmp_path: Path) -> None:
    first = weightaug("run", "dataset=folder", "dataset.path=photos", "dataset.test_share=0.3", *QUICK)
    assert first.returncode == 0, first.stderr
    text = (tmp_path / first.stdout.splitlines()[-1].removeprefix("card: ")).read_text()
    assert str(tmp_path) not in text
    card = json.loads(text)
    assert card["cell"]["dataset"]["path"].startswith("sha256:")
    assert card["metrics"]["plain"]["clean"]["n"] == 9
    loaded = weightaug("load", card["id"])  # a model comes back without its images
    assert loaded.returncode == 0, loaded.stderr
    checked = weightaug("load", card["id"], "--check")
    assert checked.returncode == 2 and "settings" in checked.stderr
    settings = ("dataset=folder", "dataset.path=photos", "dataset.test_share=0.3", *QUICK)
    assert weightaug("load", *settings, "--check").returncode == 0
    photos.rename(tmp_path / "elsewhere")
    moved = weightaug("run", "dataset=folder", "dataset.path=elsewhere", "dataset.test_share=0.3", *QUICK)
    assert "finished before" in moved.stderr  # where the files lie is no part of the cell
    _image(77).save(tmp_path / "elsewhere/cat/00.png")
    changed = weightaug("run", "dataset=folder", "dataset.path=elsewhere", "dataset.test_share=0.3", *QUICK)
    assert changed.returncode == 0
    assert changed.stdout.splitlines()[-1] != first.stdout.splitlines()[-1]  # what they hold is


def test_the_validation_split_works_on_own_images_too(photos: Path, tmp_path: Path) -> None:
    data = Folder(path=str(photos), split="validation", cache=tmp_path / "cache").load(tmp_path)
    assert (len(data.train), len(data.test)) == (21, 3)


def test_files_are_hashed_and_decoded_once(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Folder(path=str(photos), cache=tmp_path / "cache").load(tmp_path)
    monkeypatch.setattr("benchmarks.data.decode._pixels", None)
    monkeypatch.setattr("benchmarks.data.own.digest", None)
    monkeypatch.setattr("benchmarks.data.own.channel_statistics", None)
    again = Folder(path=str(photos), cache=tmp_path / "cache").load(tmp_path)
    assert torch.equal(again.train.images, data.train.images)
    assert (again.mean, again.std) == (data.mean, data.std)


def test_a_damaged_cache_is_made_anew(photos: Path, tmp_path: Path) -> None:
    data = Folder(path=str(photos), cache=tmp_path / "cache").load(tmp_path)
    kept = next((tmp_path / "cache").glob("*.safetensors"))
    damaged = kept.read_bytes()[:100]
    kept.unlink()  # what is mapped into memory stays
    kept.write_bytes(damaged)
    again = Folder(path=str(photos), cache=tmp_path / "cache").load(tmp_path)
    assert torch.equal(again.train.images, data.train.images)


def test_a_cache_that_cannot_be_written_is_a_warning(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("in the way")
    assert len(Folder(path=str(photos), cache=tmp_path / "cache").load(tmp_path).train) == 24
    assert "can't be kept" in capfd.readouterr().err


def test_files_that_change_after_the_run_began_are_refused(photos: Path, tmp_path: Path) -> None:
    cell, runtime = load(["dataset=folder", f"dataset.path={photos}", f"data={tmp_path}"])
    cell.dataset.build({"cache": runtime.cache_folder})
    _image(5).save(photos / "cat/00.png")
    with pytest.raises(UserError, match="have changed since the run began"):
        cell.dataset.build({"cache": runtime.cache_folder})


def test_images_are_resized_and_converted_when_that_is_asked_for(photos: Path, tmp_path: Path) -> None:
    _image(1, 30).resize((40, 20)).save(photos / "cat/00.png")
    _image(2, SIDE, "L").save(photos / "cat/01.png")
    _image(3, SIDE, "RGBA").save(photos / "cat/02.png")
    _image(4, SIDE, "P").save(photos / "cat/03.png")
    for channels in (1, 3):
        source = Folder(path=str(photos), size=6, channels=channels, cache=tmp_path / "cache")
        assert source.load(tmp_path).train.images.shape == (24, channels, 6, 6)


def test_files_that_are_not_used_are_named_and_counted_in_one_warning(
    weightaug: CommandLine, photos: Path
) -> None:
    for name in ("cat/notes.txt", "README.md", "dog/b.heic", "dog/a.svg"):
        (photos / name).write_text("no image")
    for name in ("top.png", "cat/deep/a.png", "cat/deep/b.png", "owl/more/deep/c.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        _image(0).save(photos / name)
    for name in ("cat/.hidden.png", ".git/x.png", ".DS_Store", "__MACOSX/cat/._00.png", "__MACOSX/x.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_text("not put there by a person")
    done = weightaug("run", "dataset=folder", "dataset.path=photos", *QUICK)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if "warning" in line]
    assert warnings == [
        f"weightaug: warning: {photos}: not used are 4 images outside of the class folders or deeper in them: "
        "cat/deep/a.png, cat/deep/b.png, owl/more/deep/c.png and 1 more; and 4 files that are no images by their "
        "name: README.md, cat/notes.txt, dog/a.svg and 1 more"
    ]


def test_a_validation_folder_beside_a_test_folder_is_said_not_to_be_used(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("train", "test", "val"):
        _class_folders(tmp_path / "photos" / name, 2)
    Folder(path=str(tmp_path / "photos"), cache=tmp_path / "cache")
    assert "not used are 6 images" in capfd.readouterr().err


def test_classes_without_test_images_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _class_folders(tmp_path / "photos")
    for name in ("bee", "cow"):
        (tmp_path / "photos" / name).mkdir()
        _image(0).save(tmp_path / "photos" / name / "single.png")
    Folder(path=str(tmp_path / "photos"), cache=tmp_path / "cache")
    said = capfd.readouterr().err
    assert "2 of 5 classes have no test images and are trained untested: bee, cow" in said
    images, labels = torch.zeros(6, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 0, 0, 0, 1, 1])
    split = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": 0 * labels}
    torch.save(split, tmp_path / "split.pt")
    Tensors(path=str(tmp_path / "split.pt"), cache=tmp_path / "cache")
    assert "1 of 2 classes have no test images and are trained untested: 1" in capfd.readouterr().err


def test_the_first_picture_of_an_animation_is_taken(photos: Path, tmp_path: Path) -> None:
    frames = [_image(seed) for seed in (505, 506)]
    frames[0].save(photos / "cat/00.gif", save_all=True, append_images=frames[1:])
    data = Folder(path=str(photos), channels=3, cache=tmp_path / "cache").load(tmp_path)
    first = np.asarray(Image.open(photos / "cat/00.gif").convert("RGB")).transpose(2, 0, 1)
    assert len(data.train) + len(data.test) == 31
    images = torch.cat([data.train.images, data.test.images])
    assert (images == torch.from_numpy(first.copy())).flatten(1).all(1).sum() == 1


def test_names_that_are_no_utf8_and_folders_called_like_images(photos: Path, tmp_path: Path) -> None:
    (photos / "cat/00.png").rename(photos / "cat" / os.fsdecode(b"\xff.png"))
    (photos / "cat/x.png").mkdir()
    for _ in range(2):
        data = Folder(path=str(photos), cache=tmp_path / "cache").load(tmp_path)
        assert len(data.train) + len(data.test) == 30


def _sixteen_bits(path: Path) -> None:
    Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 900).save(path)


def _sixteen_bit_colour(path: Path) -> None:
    """A PNG with 16 bits in each of three channels, which PIL can read but not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)
    rows = (b"\0" + bytes(range(6 * SIDE))) * SIDE
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


BAD_IMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut": (
        lambda p: p.write_bytes(p.read_bytes()[:60]),
        "1 of 30 images can't be used: cat/04.png (can't be read",
    ),
    "no image": (
        lambda p: p.write_bytes(b"no image"),
        "cat/04.png (can't be read: not an image",
    ),
    "empty": (lambda p: p.write_bytes(b""), "cat/04.png (can't be read: empty (0 bytes))"),
    "size": (
        lambda p: _image(0, 9).save(p),
        "cat/04.png (9x9 pixels among 8x8 ones; dataset.size=N resizes)",
    ),
    "oblong": (
        lambda p: _image(0).resize((8, 6)).save(p),
        "cat/04.png (8x6 pixels, not square; dataset.size=N",
    ),
    "grey": (
        lambda p: _image(0, SIDE, "L").save(p),
        "cat/04.png (grey among colour ones; dataset.channels=3 conv",
    ),
    "transparent": (
        lambda p: _image(0, SIDE, "RGBA").save(p),
        "cat/04.png (mode RGBA; dataset.channels=3 (or 1)",
    ),
    "palette": (
        lambda p: _image(0, SIDE, "P").save(p),
        "cat/04.png (mode P; dataset.channels=3 (or 1) converts",
    ),
    "16 bits": (_sixteen_bits, "cat/04.png (more than 8 bits a channel; save as 8 bits)"),
    "16 bits of colour": (_sixteen_bit_colour, "cat/04.png (more than 8 bits a channel"),
    "16 bits of colour, PPM": (
        lambda p: p.write_bytes(b"P6\n8 8\n4095\n" + bytes(8 * 8 * 6)),
        "cat/04.png (more than 8 bits a channel",
    ),
    "link to nowhere": (
        lambda p: (p.unlink(), p.symlink_to("nowhere.png")),
        "cat/04.png can't be read: No such file",
    ),
    "name of two lines": (
        lambda p: (p.parent / "a\nb.png").write_bytes(b""),
        "'cat/a\\nb.png' (can't be read: empty",
    ),
    "no folder": (lambda p: shutil.rmtree(p.parent.parent), "there is no such folder"),
    "empty class": (lambda p: [f.unlink() for f in p.parent.iterdir()], "no images in the class folder cat"),
    "no classes": (lambda p: [shutil.rmtree(f) for f in p.parent.parent.iterdir()], "has no class folders"),
    "one class": (
        lambda p: [shutil.rmtree(p.parents[1] / c) for c in ("dog", "owl")],
        "at least 2 are needed",
    ),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images_are_named_in_one_line(weightaug: CommandLine, photos: Path, case: str) -> None:
    damage, said = BAD_IMAGES[case]
    damage(photos / "cat/04.png")
    done = weightaug("run", "dataset=folder", "dataset.path=photos", *QUICK)
    assert done.returncode == 2, done.stdout
    assert done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr


def test_many_bad_images_are_counted_and_the_first_are_named_with_their_reasons(
    photos: Path, tmp_path: Path
) -> None:
    for number in range(8):
        (photos / f"dog/{number:02}.png").write_bytes(b"")
    _image(0, SIDE, "L").save(photos / "owl/00.png")
    _image(0, SIDE, "RGBA").save(photos / "owl/01.png")
    _image(0, 9).save(photos / "owl/02.png")
    (photos / "owl/03.png").write_text("not an image")
    with pytest.raises(UserError) as error:
        Folder(path=str(photos), cache=tmp_path / "cache")
    assert "12 of 30 images can't be used" in str(error.value)
    assert "dog/00.png, dog/01.png, dog/02.png and 5 more (can't be read: empty (0 bytes))" in str(
        error.value
    )
    assert "owl/00.png (grey among colour ones" in str(error.value)
    assert "owl/01.png (mode RGBA" in str(error.value)
    assert str(error.value).endswith(" and 2 more for other reasons")


def test_train_and_test_must_fit(tmp_path: Path) -> None:
    _class_folders(tmp_path / "photos/train", 3)
    cache = tmp_path / "cache"
    with pytest.raises(UserError, match="has a folder train but none called test or val"):
        Folder(path=str(tmp_path / "photos"), cache=cache)
    _class_folders(tmp_path / "photos/test", 2, ("cat", "cow", "owl"))
    with pytest.raises(UserError, match="dog missing; cow not known"):
        Folder(path=str(tmp_path / "photos"), cache=cache)
    shutil.rmtree(tmp_path / "photos/test")
    _class_folders(tmp_path / "photos/test", 2)
    for path in (tmp_path / "photos/test").rglob("*.png"):
        _image(0, 5).save(path)
    with pytest.raises(UserError, match=r"training images are 8x8 .*, test images 5x5"):
        Folder(path=str(tmp_path / "photos"), cache=cache)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "needs to be told where the images are: dataset.path=FOLDER"),
        ({"test_share": 1.5}, "above 0 and below 1"),
        ({"channels": 4}, "1 or 3 channels"),
        ({"size": 0}, "at least 1 pixel"),
    ],
)
def test_bad_settings_of_a_folder(settings: dict[str, Any], said: str, photos: Path, tmp_path: Path) -> None:
    path = {"path": str(photos)} if settings else {}
    with pytest.raises(UserError, match=said):
        Folder(**path, **settings, cache=tmp_path / "cache")


def test_a_data_set_of_a_plugin_finds_its_files_by_the_environment(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import config, registry

    folder = tmp_path / "plugin"
    (folder / "dataset").mkdir(parents=True)
    (folder / "dataset/mine.yaml").write_text(
        "_target_: benchmarks.data.own.Folder\ndescription: mine\npath: ${oc.env:MY_PHOTOS}/photos\n"
    )
    monkeypatch.setattr(registry, "folders", lambda: (registry.OWN_FOLDER, folder))
    registry.entries.cache_clear()
    monkeypatch.setenv("MY_PHOTOS", str(tmp_path))
    try:
        cell = load(["dataset=mine", f"data={tmp_path}"])[0]
        assert cell.identity()["dataset"]["name"] == "mine"
        assert cell.identity()["dataset"]["path"].startswith("sha256:")
        config._composed.clear()
        monkeypatch.delenv("MY_PHOTOS")
        with pytest.raises(UserError, match="MY_PHOTOS"):
            load(["dataset=mine", f"data={tmp_path}"])
    finally:
        registry.entries.cache_clear()
        config._composed.clear()


def test_jpeg_photographs_are_read(photos: Path, tmp_path: Path) -> None:
    for path in photos.rglob("*.png"):
        packed = io.BytesIO()
        Image.open(path).save(packed, "JPEG")
        path.with_suffix(".JPG").write_bytes(packed.getvalue())
        path.unlink()
    assert len(Folder(path=str(photos), cache=tmp_path / "cache").load(tmp_path).train) == 24


def test_folders_whose_files_agree_in_name_size_and_time_are_two(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        for label in range(2):
            place = tmp_path / folder / f"c{label}"
            place.mkdir(parents=True)
            for number in range(6):
                file = place / f"{number}.bmp"
                _image(100 * (folder == "b") + 10 * label + number).save(file)
                os.utime(file, (1e9, 1e9))
    cache = tmp_path / "cache"
    first, second = (Folder(path=str(tmp_path / name), cache=cache).load(tmp_path) for name in ("a", "b"))
    assert not torch.equal(first.train.images, second.train.images)
    assert Folder.content(cache, path=str(tmp_path / "a")) != Folder.content(cache, path=str(tmp_path / "b"))


def test_one_image_a_class_leaves_nothing_to_test_on(tmp_path: Path) -> None:
    for label in range(2):
        (tmp_path / "one" / f"c{label}").mkdir(parents=True)
        _image(label).save(tmp_path / "one" / f"c{label}" / "0.png")
    with pytest.raises(UserError, match="2 training and 0 test images"):
        Folder(path=str(tmp_path / "one"), cache=tmp_path / "cache")
