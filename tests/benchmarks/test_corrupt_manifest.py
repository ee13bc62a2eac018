"""The folder that `weightaug corrupt` writes, run after run: names, what is out of date, damage, limits, kills."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from command_line import CommandLine, environment, start
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.data.corruptions.folder import target_names

COMMAND = ("corrupt", "--source", "source", "--out", "out", "--table", "cifar")
QUICK = (*COMMAND, "--types", "contrast", "--severities", "1", "4")


def save(path: Path, seed: int, side: int = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number, name in enumerate(("cat/a.png", "cat/b.png", "dog/a.bmp")):
        save(tmp_path / "source" / name, number)
    return tmp_path / "source"


def whole(out: Path) -> dict[str, bytes]:
    """All files, the manifest too."""
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def sources(out: Path) -> list[str]:
    lines = (out / "manifest.jsonl").read_text().splitlines()[1:]
    return [json.loads(line)["source"] for line in lines]


NAMES = [
    "a.jpg",
    "a.png",
    "a.png.png",
    "a.PNG",
    "a.png.png.png",
    "a.jpg.png",
    "b.jpg",
    "b.png/x.bmp",
    "b.png/x.png",
]


@pytest.mark.parametrize(
    "images",
    [["a.jpg", "a.png", "a.png.png"], ["b.jpg", "b.png/x.bmp"], ["b.jpg.png/x.bmp", "b.jpg", "b.png"], NAMES],
)
def test_no_two_images_share_a_name(images: Sequence[str]) -> None:
    check_names(images)


@settings(max_examples=30, deadline=None)
@given(
    st.sets(st.from_regex(r"([ab](\.png)?/)?[ab](\.png){0,3}\.(png|jpg|bmp)", fullmatch=True), max_size=12)
)
def test_no_two_images_share_a_name_whatever_they_are_called(images: set[str]) -> None:
    files = [name for name in images if not any(other.startswith(f"{name}/") for other in images)]
    check_names(files)


def check_names(images: Sequence[str]) -> None:
    names = target_names(images, ".png")
    assert set(names) == set(images)
    assert len(set(names.values())) == len(images)
    folders = {str(folder) for name in names.values() for folder in Path(name).parents}
    assert not folders & set(names.values())  # no file where a folder must be
    shuffled = random.Random(0).sample(list(images), len(images))
    assert target_names(shuffled, ".png") == names


def test_three_images_whose_names_meet_have_three_copies(weightaug: CommandLine, tmp_path: Path) -> None:
    for number, name in enumerate(("a.bmp", "a.png", "a.png.png")):
        save(tmp_path / "source" / name, number)
    assert "6 files made" in weightaug(*QUICK).stdout
    names = {p.name for p in (tmp_path / "out/contrast/1").iterdir()}
    assert names == {"a.bmp.png", "a.png.png", "a.png.png.png"}
    assert sorted(sources(tmp_path / "out")) == ["a.bmp", "a.bmp", "a.png", "a.png", "a.png.png", "a.png.png"]


def test_names_that_are_no_utf8_or_of_two_lines(weightaug: CommandLine, source: Path, tmp_path: Path) -> None:
    (source / "cat/a.png").rename(source / "cat" / os.fsdecode(b"\xff.png"))
    (source / "cat/b.png").rename(source / "cat/b\nb.png")
    assert "6 files made" in weightaug(*QUICK).stdout
    assert "0 files made, 6 were there already" in weightaug(*QUICK).stdout
    (source / "cat/b\nb.png").unlink()
    assert "removed: 'cat/b\\nb.png'" in weightaug(*QUICK).stderr


def test_copies_of_images_that_are_gone_are_removed(
    weightaug: CommandLine, source: Path, tmp_path: Path
) -> None:
    weightaug(*COMMAND, "--types", "fog", "--severities", "2")
    weightaug(*QUICK)
    before = whole(tmp_path / "out")
    (source / "dog/a.bmp").unlink()
    done = weightaug(*QUICK)
    assert done.returncode == 0
    assert "3 copies of images that are gone from the source" in done.stderr
    assert "removed: dog/a.bmp" in done.stderr
    assert set(sources(tmp_path / "out")) == {"cat/a.png", "cat/b.png"}
    assert not list((tmp_path / "out").rglob("dog"))  # nor an empty class folder
    save(source / "dog/a.bmp", 2)
    weightaug(*COMMAND, "--types", "fog", "--severities", "2")
    assert "warning" not in weightaug(*QUICK).stderr
    assert whole(tmp_path / "out") == before


def test_copies_of_images_that_have_changed_are_made_again_or_removed(
    weightaug: CommandLine, source: Path, tmp_path: Path
) -> None:
    weightaug(*COMMAND, "--types", "fog", "--severities", "2")
    weightaug(*QUICK)
    save(source / "cat/a.png", 7)
    done = weightaug(*QUICK)
    assert "2 files made, 4 were there already" in done.stdout
    assert "1 images have changed since they were copied: cat/a.png" in done.stdout
    assert not (tmp_path / "out/fog/2/cat/a.png").exists()  # not asked for now, and of another image
    assert "fog/2/cat/b.png" in whole(tmp_path / "out")
    (source / "cat/a.png").write_bytes(b"damaged")
    done = weightaug(*QUICK)
    assert done.returncode == 1
    assert "cat/a.png: not an image" in done.stderr
    assert "cat/a.png" not in sources(tmp_path / "out")


def test_a_renamed_image_is_another_one(weightaug: CommandLine, source: Path, tmp_path: Path) -> None:
    weightaug(*COMMAND, "--types", "gaussian_noise", "--severities", "1")
    save(source / "dog/b.bmp", 2)
    (source / "dog/a.bmp").rename(source / "dog/a.png.bmp")  # the same bytes, other random numbers
    (source / "dog/b.bmp").rename(source / "dog/a.bmp")
    weightaug(*COMMAND, "--types", "gaussian_noise", "--severities", "1")
    arguments = ("--types", "gaussian_noise", "--severities", "1", "--out", "fresh")
    weightaug(*COMMAND, *arguments)
    assert whole(tmp_path / "out") == whole(tmp_path / "fresh")


def test_another_source_is_refused_and_nothing_removed(
    weightaug: CommandLine, source: Path, tmp_path: Path
) -> None:
    weightaug(*QUICK)
    before = whole(tmp_path / "out")
    save(tmp_path / "other/x.png", 0)
    done = weightaug(*QUICK, "--source", "other")
    assert done.returncode == 2
    assert "holds copies of other images (cat/a.png, cat/b.png, dog/a.bmp)" in done.stderr
    assert "give another --out" in done.stderr
    assert whole(tmp_path / "out") == before


@pytest.mark.parametrize(
    "damaged",
    [
        "not JSON",
        "[1, 2]",
        '{"path": "contrast/1/cat/a.png"}',
        '{"path": 3, "sha256": "", "source": "cat/a.png", "source_sha256": ""}',
        '{"path": "../source/cat/a.png", "sha256": "", "source": "gone.png", "source_sha256": ""}',
        '{"path": "contrast/1/../../../source/cat/a.png", "sha256": "", "source": "gone.png", "source_sha256": ""}',
    ],
)
def test_a_damaged_line_is_a_warning_and_its_file_is_made_again(
    weightaug: CommandLine, source: Path, tmp_path: Path, damaged: str
) -> None:
    weightaug(*QUICK)
    before = whole(tmp_path / "out")
    manifest = tmp_path / "out/manifest.jsonl"
    head, _, *rest = manifest.read_text().splitlines()
    manifest.write_text("\n".join((head, damaged, *rest)) + "\n")
    done = weightaug(*QUICK)
    assert done.returncode == 0
    assert "manifest.jsonl: 1 damaged lines" in done.stderr
    assert "1 files made, 5 were there already" in done.stdout
    assert (whole(tmp_path / "out"), (source / "cat/a.png").exists()) == (before, True)


@pytest.mark.parametrize("head", ["", "{}", "half", '{"settings": 3}', '{"path": "fog/1/a.png"}'])
def test_damaged_settings_are_an_error(
    weightaug: CommandLine, source: Path, tmp_path: Path, head: str
) -> None:
    weightaug(*QUICK)
    manifest = tmp_path / "out/manifest.jsonl"
    text = "\n".join((head, *manifest.read_text().splitlines()[1:]))
    manifest.write_text(text)
    done = weightaug(*QUICK)
    assert done.returncode == 2
    assert "manifest.jsonl: its first line, the settings that out was made with, is damaged" in done.stderr
    assert manifest.read_text() == text


@pytest.mark.parametrize("out", ["file", "file/out"])
def test_a_file_is_no_folder_to_write_to(
    weightaug: CommandLine, source: Path, tmp_path: Path, out: str
) -> None:
    (tmp_path / "file").write_text("kept")
    done = weightaug(*QUICK, "--out", out)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"--out {out} is a file, or lies in one; name a folder" in done.stderr
    assert (tmp_path / "file").read_text() == "kept"


def test_a_manifest_that_cannot_grow_is_named(source: Path, tmp_path: Path, weightaug: CommandLine) -> None:
    """No file may grow beyond so many bytes: as on a full disk, but for the error's number."""
    for number in range(30):
        save(source / f"more{number}.png", number, side=2)
    limited = subprocess.run(
        [sys.executable, "-m", "benchmarks.cli", *COMMAND, "--types", "contrast"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)),
    )
    assert limited.returncode == 2
    error = limited.stderr.splitlines()[-1]
    assert "out/manifest.jsonl can't be written: File too large; all files finished before are kept" in error
    assert "the same command goes on from there" in error
    there = list((tmp_path / "out").rglob("*.png"))
    assert there and not (tmp_path / "out/.lock").exists()
    done = weightaug(*COMMAND, "--types", "contrast")
    assert done.returncode == 0
    assert int(done.stdout.split()[3]) >= len(there) - 1  # the one whose line was cut off is made again
    shutil.move(tmp_path / "out", tmp_path / "mended")
    weightaug(*COMMAND, "--types", "contrast")
    assert whole(tmp_path / "mended") == whole(tmp_path / "out")


def test_killed_in_the_middle_it_ends_the_same_to_the_byte(
    source: Path, tmp_path: Path, weightaug: CommandLine
) -> None:
    for number in range(12):
        save(source / f"more{number}.png", number, side=32 + 4 * (number % 3))
    arguments = (*COMMAND, "--types", "glass_blur", "fog", "contrast")
    manifest = tmp_path / "out/manifest.jsonl"
    process = start(tmp_path, *arguments)
    deadline = time.monotonic() + 60
    while not (manifest.exists() and manifest.read_bytes().count(b"\n") > 40):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = [line for line in manifest.read_text().splitlines(keepends=True) if line.endswith("\n")]
    assert 40 <= len(finished) < 15 * 15
    done = weightaug(*arguments)
    assert int(done.stdout.split()[3]) >= len(finished) - 2
    assert weightaug(*arguments, "--out", "undisturbed").returncode == 0
    assert whole(tmp_path / "out") == whole(tmp_path / "undisturbed")
