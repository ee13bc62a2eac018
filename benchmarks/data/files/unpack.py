"""Unpacking archives without trust: plain files and folders alone, nothing outside the target, a limit on the size."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

from benchmarks.data.files.checks import CHUNK, Tell
from benchmarks.errors import UserError, one_line

RATIO_LIMIT = 25
"""An archive may grow to this many times its size; photographs and arrays stay below 5."""
SMALLEST_LIMIT = 64 * CHUNK


def unpack(archive: Path, target: Path, tell: Tell | None = None) -> None:
    """Unpack a tar (plain or compressed) or zip archive into the folder ``target``.

    What it holds appears in ``target`` only after all of it was unpacked beside it. Links, devices, absolute paths and
    paths that lead out of ``target`` are refused.

    Raises:
        UserError: damaged archive, refused entry, more than ``RATIO_LIMIT`` times the archive's size.
    """
    partial = target / f".{archive.name}.unpacking"
    shutil.rmtree(partial, ignore_errors=True)
    limit = max(SMALLEST_LIMIT, RATIO_LIMIT * archive.stat().st_size)
    try:
        for name, source in _entries(archive):
            limit = _write(source, partial / _safe(archive, name), limit, archive, tell)
        _move(partial, target)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{archive} can't be unpacked: {one_line(error)}; delete it and fetch it again"
        ) from error
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise UserError(
            f"{archive} can't be unpacked into {target}: {reason}; nothing was changed there"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _entries(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """(name, open file) of each entry; None for a folder."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                kind = (
                    info.external_attr >> 28
                )  # the file type of a Unix mode, 0 where another system packed it
                if kind not in (0, 0o4, 0o10):
                    raise _refused(archive, info.filename, "is a link or a device")
                if info.is_dir():
                    yield info.filename, None
                else:
                    with file.open(info) as source:
                        yield info.filename, source
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            if not (member.isreg() or member.isdir()):
                raise _refused(archive, member.name, "is a link or a device")
            yield member.name, None if member.isdir() else tar.extractfile(member)
        _check_end(tar)


def _check_end(tar: tarfile.TarFile) -> None:
    """tarfile takes the first header that it can't read for the end; the true end is a block of zeros."""
    stream = cast(IO[bytes], tar.fileobj)
    stream.seek(tar.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it is damaged or cut off")
    while stream.read(CHUNK):  # a compressed one has its own checksum at the end
        pass


def _safe(archive: Path, name: str) -> Path:
    """The entry's relative path, or an error where it would lead out of the target."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in name.split("/")[0]:
        raise _refused(archive, name, "leads out of the folder")
    return Path(*path.parts)


def _refused(archive: Path, name: str, why: str) -> UserError:
    return UserError(f"{archive}: the entry {name!r} {why}; the archive is refused, nothing was unpacked")


def _write(source: IO[bytes] | None, path: Path, limit: int, archive: Path, tell: Tell | None) -> int:
    """Write one entry; returns how many bytes may still follow."""
    if source is None:
        path.mkdir(parents=True, exist_ok=True)
        return limit
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        while piece := source.read(CHUNK):
            limit -= len(piece)
            if limit < 0:
                raise UserError(
                    f"{archive} unpacks to more than {RATIO_LIMIT} times its size; it is refused, nothing was unpacked"
                )
            file.write(piece)
            if tell:
                tell(len(piece))
    return limit


def _move(partial: Path, target: Path) -> None:
    """Put the unpacked files in their places: whole folders at once where there are none yet."""
    for path in sorted(partial.iterdir()):
        place = target / path.name
        if path.is_dir() and place.is_dir():
            _move(path, place)
        else:
            path.replace(place)
