"""What the card store asks of a shared folder: a few operations, and what may be relied on in each.

Changes (create, link, rename, remove) are made by the file server one after another: of two processes that want the
same name, one gets it. Looks (names, exists, read, stamp) may be answered from a cache that is a minute old, in any
order. That is what NFS promises; a local disk promises more. The simulation of a cluster has a disk of its own.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from benchmarks.errors import UserError


class DiskError(UserError):
    """The store can't be written to."""


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
