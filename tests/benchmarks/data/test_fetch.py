"""Downloads from a server that breaks off, lies and forgets: nothing half-made counts, and what came is used again."""

from __future__ import annotations

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from declared_files import Declare, md5
from filelock import FileLock, Timeout
from web_server import Web

from benchmarks.data.files.declared import FileSet
from benchmarks.data.files.fetch import TRIES, ensure
from benchmarks.errors import UserError
from benchmarks.results.files import alone

CONTENT = random.Random(0).randbytes(3_000_000)


@pytest.fixture
def files(declare: Declare, web: Web) -> FileSet:
    web.files["some.bin"] = CONTENT
    return _declared(declare)


def _declared(declare: Declare, **changes: object) -> FileSet:
    item = {
        "file": "set/some.bin",
        "url": "https://example.org/some.bin",
        "size": len(CONTENT),
        "md5": md5(CONTENT),
    }
    return declare("some", downloads=[{**item, **changes}])


def _left(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "set").iterdir())


def _error(files: FileSet, root: Path) -> str:
    with pytest.raises(UserError) as error:
        ensure(files, root, download=True)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_is_fetched_once(files: FileSet, web: Web, tmp_path: Path) -> None:
    ensure(files, tmp_path, download=True)
    ensure(files, tmp_path, download=False)
    assert (tmp_path / "set/some.bin").read_bytes() == CONTENT
    assert web.asked == [("some.bin", None)]
    assert _left(tmp_path) == ["some.bin"]


@pytest.mark.parametrize(
    ("plan", "ranges"),
    [
        (["break 1000", "break 500"], [None, "bytes=1000-", "bytes=1500-"]),
        (["break 1000", "status 503"], [None, "bytes=1000-", "bytes=1000-"]),
        (["break 1000", "shifted"], [None, "bytes=1000-", "bytes=1000-"]),
        (["break 1000", "whole"], [None, "bytes=1000-"]),
    ],
    ids=["breaks twice", "is busy", "sends another part", "knows no ranges"],
)
def test_a_broken_download_goes_on(
    files: FileSet, web: Web, tmp_path: Path, plan: list[str], ranges: list[str | None]
) -> None:
    web.plan = plan
    ensure(files, tmp_path, download=True)
    assert (tmp_path / "set/some.bin").read_bytes() == CONTENT
    assert [asked for _, asked in web.asked] == ranges


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(files: FileSet, web: Web, tmp_path: Path) -> None:
    web.plan = ["break 70000", *["break 0"] * TRIES]
    said = _error(files, tmp_path)
    assert "broke off" in said or "closed" in said
    assert "70,000 bytes are kept" in said
    assert _left(tmp_path) == ["some.bin.partial"]
    ensure(files, tmp_path, download=True)
    assert web.asked[-1] == ("some.bin", "bytes=70000-")
    assert (tmp_path / "set/some.bin").read_bytes() == CONTENT


def test_a_missing_file_on_the_server_is_not_asked_for_again(
    files: FileSet, web: Web, tmp_path: Path
) -> None:
    web.files.clear()
    said = _error(files, tmp_path)
    assert "404" in said
    assert files.page in said
    assert len(web.asked) == 1
    assert _left(tmp_path) == []


def test_a_wrong_size_is_found_before_the_file_is_fetched(files: FileSet, web: Web, tmp_path: Path) -> None:
    web.plan = ["claim 99"]
    assert "the server's file has 99 bytes" in _error(files, tmp_path)
    assert _left(tmp_path) == []


def test_more_than_the_published_size_is_refused(files: FileSet, web: Web, tmp_path: Path) -> None:
    web.plan = ["endless"]
    assert f"more than the {len(CONTENT):,} bytes" in _error(files, tmp_path)
    assert "some.bin" not in _left(tmp_path)


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_another_file_of_the_same_size_is_deleted(
    declare: Declare, web: Web, tmp_path: Path, kind: str
) -> None:
    web.files["some.bin"] = CONTENT[:-1] + b"?"
    checksums = {"md5": md5(CONTENT), "sha256": None}
    if kind == "sha256":
        checksums = {"md5": md5(web.files["some.bin"]), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    said = _error(_declared(declare, **checksums), tmp_path)
    assert "its checksum differs; it was deleted" in said
    assert _left(tmp_path) == []


def test_a_partial_file_that_is_too_long_is_begun_anew(files: FileSet, web: Web, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/some.bin.partial").write_bytes(CONTENT + b"x")
    ensure(files, tmp_path, download=True)
    assert web.asked == [("some.bin", None)]


def test_a_partial_file_longer_than_the_servers_is_begun_anew(
    declare: Declare, web: Web, tmp_path: Path
) -> None:
    web.files["some.bin"] = CONTENT
    files = _declared(declare, size=None)
    (tmp_path / "set").mkdir()
    (tmp_path / "set/some.bin.partial").write_bytes(CONTENT + b"x")
    ensure(files, tmp_path, download=True)
    assert web.asked == [("some.bin", f"bytes={len(CONTENT) + 1}-"), ("some.bin", None)]
    assert (tmp_path / "set/some.bin").read_bytes() == CONTENT


def test_a_file_without_a_published_checksum_is_recorded(declare: Declare, web: Web, tmp_path: Path) -> None:
    web.files["some.bin"] = CONTENT
    files = _declared(declare, size=None, md5=None)
    ensure(files, tmp_path, download=True)
    recorded = (tmp_path / "recorded-sha256.json").read_text()
    assert hashlib.sha256(CONTENT).hexdigest() in recorded


def test_a_full_disk_is_said_so(files: FileSet, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/some.bin.partial").symlink_to("/dev/full")  # every write fails as on a full disk
    assert "No space left on device; nothing was kept, free some room first" in _error(files, tmp_path)
    assert not (tmp_path / "set/some.bin").exists()


def test_too_small_a_disk_is_found_before_the_file_is_fetched(
    declare: Declare, web: Web, tmp_path: Path
) -> None:
    files = _declared(declare, size=10**18)
    assert "needs 1,000,000,000,000,000,000 more bytes" in _error(files, tmp_path)
    assert web.asked == []


def test_a_file_that_another_process_fetches_is_left_to_it(files: FileSet, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with FileLock(tmp_path / "set/.some.bin.lock"):
        assert "is being fetched by another process" in _error(files, tmp_path)
    ensure(files, tmp_path, download=True)


def test_who_holds_the_lock_is_alone_though_it_is_deleted_every_time(tmp_path: Path) -> None:
    """Four threads want the lock again and again; a file that two of them had would be written by both."""
    lock, inside, held = tmp_path / "lock", [], []

    def work(number: int) -> None:
        for _ in range(200):
            try:
                with alone(lock):
                    inside.append(number)
                    held.append(len(inside))
                    inside.remove(number)
            except Timeout:
                pass

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert set(held) == {1}
    assert not lock.exists()


def test_only_web_addresses_are_fetched(
    files: FileSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHTAUG_MIRROR", "file:///etc")
    assert "only http and https" in _error(files, tmp_path)


def test_offline_and_missing_is_one_error_with_all_that_is_needed(files: FileSet, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        ensure(files, tmp_path, download=False)
    said = str(error.value)
    for part in (
        str(tmp_path),
        "set/some.bin",
        "3,000,000 bytes",
        md5(CONTENT),
        "https://example.org/some.bin",
    ):
        assert part in said
    assert "weightaug data fetch some" in said
    assert "\n" not in said
