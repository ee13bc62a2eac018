"""Downloads that can break off anywhere: resumed where they stopped, checked before they count, never half there."""

from __future__ import annotations

import errno
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from filelock import Timeout

from benchmarks.data.files.checks import CHUNK, Recorded, Tell, check
from benchmarks.data.files.declared import Download, FileSet
from benchmarks.data.files.progress import Watcher, watching
from benchmarks.data.files.unpack import unpack
from benchmarks.errors import UserError, one_line
from benchmarks.results.files import alone
from benchmarks.runtime import DATA_VARIABLE

MIRROR_VARIABLE = "WEIGHTAUG_MIRROR"
"""Address of a folder of one's own that holds the published files; they are fetched from there instead."""
TRIES = 4
"""A download that makes no progress in this many attempts is given up."""
SECONDS = 30.0
PAUSE = 1.0
"""Seconds before the second attempt without progress; twice as long before each further one."""
BROKEN = (OSError, http.client.HTTPException)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def ensure(files: FileSet, root: Path, download: bool) -> None:
    """Have every part of ``files`` below ``root``: unpack archives that lie there, fetch what is missing if allowed.

    Raises:
        UserError: what is missing, with its expected place, size, checksum and source; or why it can't be had.
    """
    for item in files.downloads:
        if all((root / part).exists() for part in item.parts):
            continue
        if not item.url or not (download or (item.contents and (root / item.file).is_file())):
            raise UserError(str(files.missing(root, DATA_VARIABLE)))
        obtain(files, item, root)


def obtain(files: FileSet, item: Download, root: Path) -> None:
    """Have one published file below ``root``, checked, and unpacked if it is an archive; fetch it if it isn't there.

    Raises:
        UserError: why it can't be had, and its place, size, checksum and source.
    """
    try:
        _obtain(files, item, root)
    except UserError as error:
        raise UserError(f"{error}; {files.expected(item, root)}") from error


def _obtain(files: FileSet, item: Download, root: Path) -> None:
    path = root / item.file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path.with_name(f".{path.name}.lock")), watching() as watcher:
            if not path.is_file():
                _fetch(files, item, path, watcher)
            elif item.checksum:
                check(
                    path,
                    item.checksum,
                    files.name,
                    watcher.begin(f"checking {path.name}", path.stat().st_size),
                )
            if not item.checksum:
                Recorded(root).check(root, item.file)
            if item.contents:
                unpack(path, root / item.into, watcher.begin(f"unpacking {path.name}", None))
    except Timeout:
        raise UserError(f"{path} is being fetched by another process; wait for it") from None
    except PermissionError as error:
        raise UserError(
            f"{error.filename or path} can't be written to; set {DATA_VARIABLE} to another folder"
        ) from None


def address(item: Download) -> str:
    """Where a file is fetched from."""
    mirror = os.environ.get(MIRROR_VARIABLE)
    return f"{mirror.rstrip('/')}/{Path(item.file).name}" if mirror else str(item.url)


def _fetch(files: FileSet, item: Download, path: Path, watcher: Watcher) -> None:
    """Fetch to ``path``: into a .partial file that a later call goes on with, and into place once it is checked."""
    url, partial = address(item), path.with_name(f"{path.name}.partial")
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url}: only http and https addresses can be fetched ({MIRROR_VARIABLE})")
    _check_space(item, partial)
    tell = watcher.begin(f"fetching {path.name}", item.size, _size(partial))
    tries = 0
    while True:
        before = _size(partial)
        try:
            if _transfer(url, item, partial, tell):
                break
            problem = "the connection broke off"
        except urllib.error.HTTPError as error:
            problem = f"the server says {error.code} {error.reason}"
            if error.code < 500:
                raise _failed(files, url, problem, partial) from None
        except BROKEN as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise UserError(f"{path}: {error.strerror}; {_kept(partial)}, free some room first") from None
            problem = one_line(error)
        tries = 0 if _size(partial) > before else tries + 1
        if tries >= TRIES:
            raise _failed(files, url, problem, partial)
        time.sleep(PAUSE * 2 ** (tries - 1) if tries else 0)
    try:
        if item.checksum:
            check(partial, item.checksum, files.name, watcher.begin(f"checking {path.name}", _size(partial)))
    except UserError:
        partial.unlink()
        raise UserError(
            f"{url} is not the published {item.describe()}: its checksum differs; it was deleted. Try again, or get "
            f"the file yourself from {files.page} and put it at {path}"
        ) from None
    partial.replace(path)


def _transfer(url: str, item: Download, partial: Path, tell: Tell) -> bool:
    """Fetch what is missing of ``partial``; whether it is whole now. What arrived is kept whatever happens."""
    have = _size(partial)
    if item.size is not None and have >= item.size:
        if have == item.size:
            return True
        partial.unlink()  # longer than the file can be: of no use
        have = 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        partial.unlink()
        return False
    with response:
        start, total = _extent(response, have)
        if item.size is not None and total is not None and total != item.size:
            raise UserError(
                f"{url} is not the published {item.describe()}: the server's file has {total:,} bytes; "
                f"{_kept(partial)}"
            )
        if start == 0 and have:
            tell(-have)  # the server sends it all again
        with partial.open("r+b" if start else "wb") as file:
            file.seek(start)
            whole = _copy(response, file, item.size or total, tell)
            file.truncate()
            os.fsync(file.fileno())
            return whole and file.tell() == (item.size or total or file.tell())


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """(where the sent bytes begin, size of the whole file if the server says)."""
    if response.status == http.client.PARTIAL_CONTENT:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if found and int(found[1]) == have:
            return have, None if found[2] == "*" else int(found[2])
        raise http.client.HTTPException("the server sent another part of the file than it was asked for")
    length = response.headers.get("Content-Length")
    return 0, int(length) if length and length.isdigit() else None


def _copy(response: IO[bytes], file: IO[bytes], size: int | None, tell: Tell) -> bool:
    """Copy to the end, or as far as the connection holds; whether the end was seen."""
    piece = b"-"
    while piece:
        try:
            piece, broken = response.read(CHUNK), False
        except http.client.IncompleteRead as error:
            piece, broken = error.partial, True
        except BROKEN:
            return False
        if size is not None and file.tell() + len(piece) > size:
            raise UserError(f"{file.name}: the server sends more than the {size:,} bytes of the file")
        file.write(piece)
        tell(len(piece))
        if broken:
            return False
    return True


def _check_space(item: Download, partial: Path) -> None:
    missing = (item.size or 0) - _size(partial)
    free = shutil.disk_usage(partial.parent).free
    if missing > free:
        raise UserError(
            f"{item.file} needs {missing:,} more bytes, {partial.parent} has {free:,} free; make room, or set "
            f"{DATA_VARIABLE} to another folder"
        )


def _failed(files: FileSet, url: str, problem: str, partial: Path) -> UserError:
    return UserError(
        f"{url} can't be fetched: {problem}; {_kept(partial)}. The same command goes on from there; the file's page is "
        f"{files.page}, and {MIRROR_VARIABLE} may name another address that has it"
    )


def _kept(partial: Path) -> str:
    have = _size(partial)
    return f"{have:,} bytes are kept in {partial}" if have else "nothing was kept"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
