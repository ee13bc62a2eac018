"""What the card store asks of a shared folder: a few operations, and what may be relied on in each.

Changes (create, link, rename, remove) are made by the file server one after another: of two processes that want the
same name, one gets it. Looks (names, exists, read, stamp) may be answered from a cache that is a minute old, in any
order. That is what NFS promises; a local disk promises more. The simulation of a cluster has a disk of its own.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.errors import UserError, one_line
from benchmarks.terminal import warn_once


class DiskError(UserError):
    """The store can't be written to."""


T = TypeVar("T")
PATIENCE_SECONDS = 600.0
"""So long the writing of a finished cell is tried on a disk that takes nothing."""
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class Disk:
    """The file system of this machine, and its clock."""

    def now(self) -> float:
        """Seconds on a clock of this machine that only goes forward; of no use on another."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def names(self, folder: Path) -> list[str]:
        """What lies in a folder; nothing where there is no folder."""
        try:
            return [path.name for path in folder.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def exists(self, path: Path) -> bool:
        return path.exists()

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def stamp(self, path: Path) -> int | None:
        """When a file was last changed, by the server's clock, in nanoseconds; None where there is none."""
        try:
            return path.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def make_folder(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def create(self, path: Path, text: str = "") -> None:
        """A new file; FileExistsError where there is one already."""
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def write(self, path: Path, text: str) -> None:
        """A file that appears whole in the place of what was there. Its folder must be there."""
        partial = path.parent / f".{path.name}.partial-{secrets.token_hex(8)}"
        try:
            self.create(partial, text)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def link(self, path: Path, new: Path) -> None:
        """A second name for a file; FileExistsError where it is taken."""
        os.link(path, new)

    def names_of(self, path: Path) -> int:
        """How many names a file has, as the server knows it."""
        return path.stat().st_nlink

    def rename(self, path: Path, new: Path) -> None:
        """FileNotFoundError where ``path`` is not there (any more); OSError where ``new`` is a folder not empty."""
        path.rename(new)

    def remove(self, path: Path) -> None:
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        """OSError where it is not empty."""
        path.rmdir()

    def facts(self, path: Path, needed: tuple[str, ...]) -> dict[str, Any]:
        """What a small JSON file says; empty where it is missing or makes no sense.

        Args:
            needed: keys without which it makes none.
        """
        try:
            content = json.loads(self.read(path))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) and all(key in content for key in needed) else {}

    def patiently(self, path: Path, write: Callable[[], T]) -> T:
        """Do ``write`` for the file ``path``, again and again while the disk is full, read-only or out of reach.

        Raises:
            DiskError: for more than :data:`PATIENCE_SECONDS`.
            FileExistsError: as ``write`` does.
        """
        begun = self.now()
        while True:
            try:
                return write()
            except FileExistsError:
                raise
            except OSError as error:
                said = f"{path} can't be written: {error.strerror or one_line(error)}"
                if self.now() - begun >= PATIENCE_SECONDS:
                    raise DiskError(
                        f"{said}; the cell's checkpoint is kept, make room and run it again"
                    ) from error
                warn_once(f"{said}; trying for {PATIENCE_SECONDS / 60:.0f} minutes")
                self.wait(min(10.0, PATIENCE_SECONDS))

    def publish(self, path: Path, text: str, ready: Callable[[], None] = lambda: None) -> None:
        """A new file that appears whole, and once: FileExistsError for all but one of those who try.

        Args:
            ready: called just before it appears; may raise.
        """
        partial = path.parent / f".{path.name}.partial-{secrets.token_hex(8)}"
        try:
            self.create(partial, text)
            ready()
            self.link(partial, path)
        except FileExistsError:
            if (
                self.names_of(partial) == 1
            ):  # with 2 it was done, only the answer got lost and it was tried again
                raise
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            self.create(path)  # one process gets past here; if it dies now, an empty card is a damaged one
            self.rename(partial, path)
        finally:
            with suppress(OSError):
                self.remove(partial)
