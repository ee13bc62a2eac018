"""`weightaug data` as a person meets it."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import CommandLine
from declared_files import Declare, md5, tar
from web_server import Web

PARTS = {"set/one.bin": b"1" * 5000, "set/two.bin": b"2" * 5000}


@pytest.fixture(autouse=True)
def small(declare: Declare, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """One archive and one folder whose images are counted; the mirror has them."""
    monkeypatch.delenv("WEIGHTAUG_DATA", raising=False)
    web.files["small.tar.gz"] = tar(PARTS)
    item = {
        "file": "small.tar.gz",
        "url": "https://example.org/small.tar.gz",
        "size": len(web.files["small.tar.gz"]),
        "md5": md5(web.files["small.tar.gz"]),
        "published": "in this test",
        "contents": {part: md5(content) for part, content in PARTS.items()},
    }
    declare("small", description="two files", downloads=[item])
    counted = {"file": "by hand", "contents": {"photos": 3, "notes.txt": None}}
    declare("handmade", description="three photographs", prepare="take them", downloads=[counted])


def _row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"{name} "))


def test_list_says_what_there_is_and_what_is_there(weightaug: CommandLine) -> None:
    before = weightaug("data", "list")
    assert before.returncode == 0
    assert "absent" in _row(before.stdout, "small")
    assert "MD5" in _row(before.stdout, "small")
    assert "embedded" in _row(before.stdout, "digits")
    for name in (
        "cifar10",
        "cifar100",
        "fashion_mnist",
        "svhn",
        "tinyimagenet",
        "imagenet",
        "cifar10_c",
        "imagenet_a",
    ):
        assert "absent" in _row(before.stdout, name)
    weightaug("data", "fetch", "small")
    assert "there" in _row(weightaug("data", "list").stdout, "small")
    Path("data/set/one.bin").unlink()
    assert "incomplete" in _row(weightaug("data", "list", "small").stdout, "small")


def test_fetch_verify_and_mend(weightaug: CommandLine, web: Web) -> None:
    done = weightaug("data", "fetch", "small", "data=elsewhere")
    assert done.returncode == 0, done.stderr
    assert "small: there, checked" in done.stdout
    assert "fetching small.tar.gz" in done.stderr
    assert {path.name for path in Path("elsewhere").iterdir()} >= {"set", "small.tar.gz"}
    assert weightaug("data", "verify", "data=elsewhere").stdout == "small: there, right\n"
    Path("elsewhere/set/two.bin").write_bytes(b"3" * 5000)
    wrong = weightaug("data", "verify", "data=elsewhere")
    assert wrong.returncode == 2
    assert "two.bin differs from the published MD5" in wrong.stdout
    assert wrong.stderr == (
        "weightaug: error: 1 of the files are missing or not the published ones; see `weightaug data fetch NAME`\n"
    )
    assert weightaug("data", "fetch", "small", "data=elsewhere").returncode == 0
    assert Path("elsewhere/set/two.bin").read_bytes() == PARTS["set/two.bin"]
    assert len(web.asked) == 1  # mended from the archive that was there


def test_every_error_gives_place_size_checksum_and_source(
    weightaug: CommandLine, web: Web, tmp_path: Path
) -> None:
    archive = web.files["small.tar.gz"]
    needed = (
        f"expected in {tmp_path / 'data'}: small.tar.gz ({len(archive):,} bytes, MD5 {md5(archive)}), "
        "from https://example.org/small.tar.gz"
    )
    web.plan = ["status 404", "claim 5"]
    for said in ("can't be fetched", "the server's file has 5 bytes"):
        line = weightaug("data", "fetch", "small").stderr.splitlines()[-1]
        assert said in line and line.endswith(needed)
    absent = weightaug("data", "verify", "small").stdout.splitlines()
    assert len(absent) == 2 and all("is missing; " in line and line.endswith(needed) for line in absent)
    assert weightaug("data", "fetch", "small").returncode == 0
    assert not list((tmp_path / "data").rglob("*.lock"))
    (tmp_path / "data/set/one.bin").write_bytes(b"changed")
    (line,) = weightaug("data", "verify", "small").stdout.splitlines()
    assert "one.bin differs from the published MD5" in line and line.endswith(needed)


def test_a_damaged_archive_beside_damaged_files_is_named(weightaug: CommandLine) -> None:
    Path("data").mkdir()
    Path("data/small.tar.gz").write_bytes(b"damaged")
    done = weightaug("data", "fetch", "small")
    assert done.returncode == 2
    assert "small.tar.gz differs from the published MD5" in done.stderr
    assert "delete it" in done.stderr


def test_what_cannot_be_fetched_says_how_to_get_it(weightaug: CommandLine) -> None:
    done = weightaug("data", "fetch", "handmade")
    assert done.returncode == 2
    assert "take them (https://example.org/handmade)" in done.stderr
    assert done.stderr.count("\n") == 1


def test_folders_are_verified_by_their_count_and_files_by_what_was_recorded(weightaug: CommandLine) -> None:
    Path("data/photos/cat").mkdir(parents=True)
    for number in range(3):
        Path(f"data/photos/cat/{number}.jpg").touch()
    Path("data/notes.txt").write_text("first")
    assert weightaug("data", "verify", "handmade").returncode == 0
    Path("data/photos/cat/2.jpg").unlink()
    said = weightaug("data", "fetch", "handmade").stderr
    assert "holds 2 images, expected 3; expected in " in said
    assert (
        "by hand (size not published, no checksum), by hand: take them (https://example.org/handmade)" in said
    )
    Path("data/notes.txt").write_text("second")
    done = weightaug("data", "verify", "handmade")
    assert done.returncode == 2
    assert "holds 2 images, expected 3" in done.stdout
    assert "has changed since it was first used" in done.stdout


def test_where_gives_address_size_checksum_and_place(weightaug: CommandLine, tmp_path: Path) -> None:
    said = weightaug("data", "where", "small").stdout
    for part in (
        "https://example.org/small.tar.gz",
        "bytes, MD5 ",
        "published: in this test",
        str(tmp_path / "data/set"),
    ):
        assert part in said
    assert weightaug("data", "where").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fetsch", "small"], "did you mean 'fetch'"),
        (["fetch", "smal"], "did you mean 'small'"),
        (["fetch"], "name what is to be fetched"),
        (["list", "date=x"], "did you mean 'data'"),
        (["verify", "small"], "2 of the files are missing"),
    ],
)
def test_bad_input_is_one_line(weightaug: CommandLine, arguments: list[str], said: str) -> None:
    done = weightaug("data", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_a_run_fetches_what_it_needs_when_it_may(weightaug: CommandLine, web: Web) -> None:
    web.files.clear()
    done = weightaug("run", "dataset=cifar10", "download=true", "wandb=disabled", "device=cpu")
    assert done.returncode == 2
    assert "cifar-10-python.tar.gz can't be fetched: the server says 404" in done.stderr
    assert web.asked == [("cifar-10-python.tar.gz", None)]
