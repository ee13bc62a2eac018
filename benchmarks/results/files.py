"""Files that appear whole or not at all, locks, and damaged files set aside instead of deleted."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from benchmarks.terminal import warn


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` by atomic rename: a reader sees the old file or the new one, never a part."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` by atomic rename."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def atomic(
    path: Path, folder: Path | None = None, ready: Callable[[], None] = lambda: None
) -> Iterator[Path]:
    """A file to write to that becomes ``path`` when the context ends; after an error it is gone.

    Args:
        folder: where it lies until then, on the same file system; None: beside ``path``.
        ready: called just before it becomes ``path``; may raise.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = (folder or path.parent) / f".{path.name}.partial-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        ready()
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def set_aside(path: Path, why: str) -> None:
    """Move a damaged file into ``damaged/`` beside it, keep it, and say so on stderr."""
    target = path.parent / "damaged" / f"{path.stem}-{time.time_ns()}{path.suffix}"
    try:
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
    except FileNotFoundError:  # another process was quicker
        return
    except OSError:  # a folder that can't be written to
        warn(f"{path}: {why}; left where it is")
        return
    warn(f"{path}: {why}; kept as {target}")


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold a lock file that no other process holds; it is gone afterwards.

    Deleting it while it is held is safe: whoever opened it before sees that it has no name any more, and tries again.

    Raises:
        filelock.Timeout: another process holds it.
    """
    with FileLock(lock, timeout=0):
        try:
            yield
        finally:
            with suppress(OSError):  # a system that deletes no open files
                lock.unlink()
