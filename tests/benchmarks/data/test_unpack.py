"""Archives are unpacked without trust: whatever leads out of the folder, or is no plain file, is refused."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.data.files import unpack as module
from benchmarks.data.files.unpack import unpack
from benchmarks.errors import UserError


def _tar(path: Path, *members: tuple[tarfile.TarInfo | str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def _zip(path: Path, *members: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def _special(kind: bytes, target: str = "/etc/passwd") -> tarfile.TarInfo:
    info = tarfile.TarInfo("set/entry")
    info.type, info.linkname = kind, target
    return info


def _zip_link(name: str = "set/link") -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:xz"])
def test_tar_archives(tmp_path: Path, target: Path, mode: str) -> None:
    archive = _tar(tmp_path / "a.tar", ("set/one", b"1"), ("./set/deep/two", b"22"), mode=mode)
    unpack(archive, target)
    assert _files(target) == {"set/one": b"1", "set/deep/two": b"22"}
    assert archive.is_file()


def test_zip_archives(tmp_path: Path, target: Path) -> None:
    unpack(_zip(tmp_path / "a.zip", ("set/", b""), ("set/one", b"1")), target)
    assert _files(target) == {"set/one": b"1"}


def test_what_is_there_is_completed_and_replaced_not_lost(tmp_path: Path, target: Path) -> None:
    (target / "set").mkdir()
    (target / "set/own").write_bytes(b"mine")
    (target / "set/one").write_bytes(b"damaged")
    unpack(_tar(tmp_path / "a.tar", ("set/one", b"1"), ("set/two", b"2")), target)
    assert _files(target) == {"set/own": b"mine", "set/one": b"1", "set/two": b"2"}


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "upwards": (lambda p: _tar(p, ("../outside", b"x")), "leads out"),
    "upwards within": (lambda p: _tar(p, ("set/../../outside", b"x")), "leads out"),
    "absolute": (lambda p: _tar(p, ("/tmp/outside-of-it", b"x")), "leads out"),
    "drive": (lambda p: _tar(p, ("C:/outside", b"x")), "leads out"),
    "backslash": (lambda p: _tar(p, ("..\\outside", b"x")), "leads out"),
    "symbolic link": (lambda p: _tar(p, (_special(tarfile.SYMTYPE), b"")), "link or a device"),
    "hard link": (lambda p: _tar(p, (_special(tarfile.LNKTYPE), b"")), "link or a device"),
    "character device": (lambda p: _tar(p, (_special(tarfile.CHRTYPE), b"")), "link or a device"),
    "block device": (lambda p: _tar(p, (_special(tarfile.BLKTYPE), b"")), "link or a device"),
    "pipe": (lambda p: _tar(p, (_special(tarfile.FIFOTYPE), b"")), "link or a device"),
    "zip upwards": (lambda p: _zip(p, ("../outside", b"x")), "leads out"),
    "zip absolute": (lambda p: _zip(p, ("/outside", b"x")), "leads out"),
    "zip link": (lambda p: _zip(p, (_zip_link(), b"/etc/passwd")), "link or a device"),
}


@pytest.mark.parametrize("case", BAD)
def test_dangerous_archives_are_refused(tmp_path: Path, target: Path, case: str) -> None:
    make, said = BAD[case]
    archive = make(tmp_path / "bad.archive")
    with pytest.raises(UserError, match=said):
        unpack(archive, target)
    assert list(target.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.archive", "target"]


def test_a_safe_entry_before_a_dangerous_one_is_not_kept(tmp_path: Path, target: Path) -> None:
    with pytest.raises(UserError, match="nothing was unpacked"):
        unpack(_tar(tmp_path / "a.tar", ("set/one", b"1"), (_special(tarfile.SYMTYPE), b"")), target)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("make", [_tar, _zip])
def test_an_archive_that_grows_beyond_measure_is_refused(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Path]
) -> None:
    monkeypatch.setattr(module, "SMALLEST_LIMIT", 1000)
    archive = make(tmp_path / "bomb", ("set/zeros", bytes(5_000_000)))
    with pytest.raises(UserError, match="25 times its size"):
        unpack(archive, target)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("make", [_tar, _zip])
@pytest.mark.parametrize("damage", ["cut", "changed", "other"])
def test_a_damaged_archive_is_named(
    tmp_path: Path, target: Path, make: Callable[..., Path], damage: str
) -> None:
    archive = make(
        tmp_path / "a", *[(f"set/{n}", bytes([n]) * 5000 + str(n).encode() * 999) for n in range(40)]
    )
    content = bytearray(archive.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "changed":
        content[len(content) // 3 : len(content) // 3 + 40] = bytes(40)
    else:
        content = bytearray(b"<html>not found</html>")
    archive.write_bytes(content)
    with pytest.raises(UserError) as error:
        unpack(archive, target)
    assert f"{archive} can't be unpacked" in str(error.value)
    assert list(target.iterdir()) == []
