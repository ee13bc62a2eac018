"""`weightaug corrupt`: layout and manifest, resuming, full disks, images of all modes and damaged ones."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import CommandLine
from filelock import FileLock
from PIL import Image

from benchmarks.data.corruptions import corrupt, folder, read_table
from weightaug.random import derive_seed

TYPES = ("--types", "gaussian_noise", "contrast", "--severities", "1", "4")


def pixels(height: int = 12, width: int = 10, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two class folders and one image beside them."""
    for number, name in enumerate(("cat/a.png", "cat/b.bmp", "dog/deep/a.png", "top.PNG")):
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(seed=number, width=10 + number // 2)).save(path)
    return tmp_path / "source"


def entries(out: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    head, *lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    return head["settings"], {line["path"]: line for line in lines}


def contents(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*.png")}


def test_layout_manifest_and_pixels(weightaug: CommandLine, source: Path, tmp_path: Path) -> None:
    (source / "notes.txt").write_text("no image")
    done = weightaug(
        "corrupt", "--source", str(source), "--out", "out", "--table", "cifar", "--seed", "3", *TYPES
    )
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        0,
        "16 files made, 0 were there already, in out",
    )
    assert "1 files of" in done.stdout
    settings, lines = entries(tmp_path / "out")
    assert settings["parameters"] == read_table("cifar")
    assert (settings["table"], settings["seed"], settings["format"]) == ("cifar", 3, "png")
    names = ("cat/a.png", "cat/b.png", "dog/deep/a.png", "top.png")
    assert set(lines) == {
        f"{t}/{s}/{n}" for t in ("gaussian_noise", "contrast") for s in (1, 4) for n in names
    }
    for path, line in lines.items():
        assert line["sha256"] == hashlib.sha256((tmp_path / "out" / path).read_bytes()).hexdigest()
        assert line["source_sha256"] == hashlib.sha256((source / line["source"]).read_bytes()).hexdigest()
        image = torch.from_numpy(np.array(Image.open(source / line["source"]))).permute(2, 0, 1).unsqueeze(0)
        number = torch.tensor([derive_seed("image", line["source"])])
        expected = corrupt(image, line["type"], line["severity"], "cifar", number, seed=3)
        made = np.array(Image.open(tmp_path / "out" / path))
        assert torch.equal(torch.from_numpy(made).permute(2, 0, 1), expected[0])


def test_an_images_copy_depends_on_nothing_else(weightaug: CommandLine, source: Path, tmp_path: Path) -> None:
    command = ("corrupt", "--source", str(source), "--table", "cifar", *TYPES)
    assert weightaug(*command, "--out", "whole").returncode == 0
    (source / "cat" / "a.png").rename(tmp_path / "kept.png")
    assert weightaug(*command, "--out", "other").returncode == 0
    (tmp_path / "kept.png").rename(source / "cat" / "a.png")
    assert "4 files made, 12 were there already" in weightaug(*command, "--out", "other").stdout
    assert contents(tmp_path / "whole") == contents(tmp_path / "other")


def test_what_is_damaged_or_changed_is_made_again(
    weightaug: CommandLine, source: Path, tmp_path: Path
) -> None:
    command = ("corrupt", "--source", str(source), "--out", "out", "--table", "cifar", *TYPES)
    weightaug(*command)
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "contrast/1/top.png").write_bytes(b"half")
    (tmp_path / "out" / "contrast/4/top.png").unlink()
    (tmp_path / "out" / "contrast/4/.top.png.partial").write_bytes(b"half")
    with (tmp_path / "out" / "manifest.jsonl").open("a") as file:
        file.write('{"path": "contrast/1/cat')  # as a full disk or a kill leaves it
    assert "2 files made, 14 were there already" in weightaug(*command).stdout
    assert contents(tmp_path / "out") == before
    assert not list((tmp_path / "out").rglob("*.partial"))
    Image.fromarray(pixels(seed=9)).save(source / "cat/a.png")
    assert "4 files made, 12 were there already" in weightaug(*command).stdout
    done = weightaug(*command, "--seed", "1")
    assert done.returncode == 2
    assert "was made with other settings (seed); give another --out" in done.stderr


def test_a_full_disk_keeps_what_is_finished(
    weightaug: CommandLine, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("corrupt", "--source", str(source), "--out", "out", "--table", "cifar", *TYPES)
    write, written = Path.write_bytes, 0

    def full(path: Path, content: bytes) -> int:
        nonlocal written
        written += path.name != ".manifest.jsonl.partial"
        if written <= 5:
            return write(path, content)
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    done = weightaug(*command)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "can't be written: No space left on device; all files finished before are kept, and manifest.jsonl lists them; "
        "mend that (make room), and the same command goes on from there"
    )
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    lines = entries(tmp_path / "out")[1]
    assert len(lines) == 5 == len(contents(tmp_path / "out"))
    assert not list((tmp_path / "out").rglob("*.partial"))
    assert "11 files made, 5 were there already" in weightaug(*command).stdout


def test_images_of_all_modes(weightaug: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "modes").mkdir()
    image = Image.fromarray(pixels())
    alpha = Image.fromarray(pixels(seed=1)[..., 0])
    wide = (np.arange(120, dtype=np.uint16) * 546).reshape(12, 10)
    files: dict[str, Image.Image] = {
        **{mode: image.convert(mode) for mode in ("1", "L", "P", "RGB", "CMYK", "YCbCr")},
        "RGBA": Image.merge("RGBA", (*image.split(), alpha)),
        "LA": Image.merge("LA", (image.convert("L"), alpha)),
        "I;16": Image.fromarray(wide),
    }
    for mode, made in files.items():
        made.save(
            tmp_path / "modes" / f"{mode.replace(';', '')}.{'tif' if mode in ('CMYK', 'YCbCr') else 'png'}"
        )
    done = weightaug(
        "corrupt", "--source", "modes", "--out", "out", "--types", "contrast", "--severities", "2"
    )
    assert done.returncode == 0, done.stderr
    lines = entries(tmp_path / "out")[1].values()
    assert {line["source_mode"] for line in lines} == set(files)
    made = {line["source_mode"]: Image.open(tmp_path / "out" / line["path"]) for line in lines}
    assert {mode: made[mode].mode for mode in files} == {
        **dict.fromkeys(("1", "L", "I;16"), "L"),
        **dict.fromkeys(("P", "RGB", "CMYK", "YCbCr"), "RGB"),
        **{"RGBA": "RGBA", "LA": "LA"},
    }
    assert np.array_equal(np.array(made["RGBA"].getchannel("A")), np.array(alpha))
    assert np.array_equal(np.array(made["LA"].getchannel("A")), np.array(alpha))
    grey = torch.from_numpy((wide >> 8).astype(np.uint8)).view(1, 1, 12, 10)
    expected = corrupt(grey, "contrast", 2, "imagenet")
    assert np.array_equal(np.array(made["I;16"]), expected[0, 0].numpy())
    assert np.array_equal(np.array(made["RGBA"].convert("RGB")), np.array(made["RGB"]))


def test_bad_images_are_named_and_counted_and_the_others_kept(
    weightaug: CommandLine, source: Path, tmp_path: Path
) -> None:
    whole = (source / "cat/a.png").read_bytes()
    (source / "cut.png").write_bytes(whole[: len(whole) // 2])
    (source / "empty.jpg").write_bytes(b"")
    (source / "text.png").write_text("not an image")
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(source / "floats.tif")
    Image.fromarray(np.full((4, 4), 1 << 20, dtype=np.int32)).save(source / "long.tif")
    done = weightaug("corrupt", "--source", str(source), "--out", "out", *TYPES)
    assert done.returncode == 1
    assert "16 files made" in done.stdout
    assert "5 images could not be used:" in done.stderr
    for line in (
        "cut.png: damaged: ",
        "empty.jpg: empty (0 bytes)",
        "text.png: not an image that can be read",
        "floats.tif: values are floating-point numbers",
        "long.tif: values are 32-bit numbers",
    ):
        assert f"  {line}" in done.stderr
    assert len(contents(tmp_path / "out")) == 16


def test_size_format_and_equal_names(weightaug: CommandLine, source: Path, tmp_path: Path) -> None:
    Image.fromarray(pixels(20, 30)).save(source / "cat" / "a.jpg")
    command = ("corrupt", "--source", str(source), "--types", "contrast", "--severities", "3", "--size", "8")
    assert weightaug(*command, "--out", "out", "--format", "jpeg").returncode == 0
    made = sorted(
        p.relative_to(tmp_path / "out/contrast/3").as_posix() for p in (tmp_path / "out").rglob("*.jpg")
    )
    assert made == ["cat/a.jpg.jpg", "cat/a.png.jpg", "cat/b.jpg", "dog/deep/a.jpg", "top.jpg"]
    settings, lines = entries(tmp_path / "out")
    assert (settings["size"], settings["quality"]) == (8, 85)
    for path in lines:
        with Image.open(tmp_path / "out" / path) as image:
            assert (image.size, image.format) == ((8, 8), "JPEG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--types", "fgo"), "did you mean 'fog'"),
        (("--table", "imagnet"), "did you mean 'imagenet'"),
        (("--severities", "0"), "whole numbers from 1 to 5"),
        (("--format", "gif"), "unknown format 'gif'"),
        (("--quality", "50"), "goes with --format jpeg"),
        (("--format", "jpeg", "--quality", "96"), "--quality 96: from 1 to 95"),
        (("--size", "0"), "must be at least 1 pixel"),
        (("--device", "tpu"), "unknown device 'tpu'"),
        (("--source", "nowhere"), "is no folder"),
        (("--source", "bare"), "has no image"),
        (("--out", "source/out"), "lies in --source"),
    ],
)
def test_bad_settings(
    weightaug: CommandLine, source: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "bare").mkdir()
    done = weightaug("corrupt", "--source", "source", "--out", "out", *arguments)
    error = [
        line for line in done.stderr.splitlines() if "warning" not in line
    ]  # of frost, which may be missing
    assert (done.returncode, len(error)) == (2, 1)
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_two_at_once_are_told_apart(weightaug: CommandLine, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with FileLock(str(tmp_path / "out" / ".lock")):
        done = weightaug("corrupt", "--source", "source", "--out", "out", *TYPES)
    assert done.returncode == 2
    assert "another `weightaug corrupt` is writing there" in done.stderr


def test_many_sizes_do_not_wait_for_ever(
    weightaug: CommandLine, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "WAITING_VALUES", 1)
    command = ("corrupt", "--source", "source", "--table", "cifar", *TYPES)
    assert weightaug(*command, "--out", "one").returncode == 0
    monkeypatch.setattr(folder, "WAITING_VALUES", 1 << 25)
    assert weightaug(*command, "--out", "all").returncode == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "all")
