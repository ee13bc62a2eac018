"""Checksums: a file is compared with what was published for it, or with what was recorded when it was first used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from benchmarks.errors import UserError
from benchmarks.results.files import write_json

NAMES = {"sha256": "SHA-256", "md5": "MD5"}
"""The kinds of checksums that are published, the strongest first."""
CHUNK = 1 << 20
Tell = Callable[[int], None]
"""Is told how many bytes more are done."""


def hasher(kind: str) -> hashlib._Hash:
    return hashlib.new(kind, usedforsecurity=False)


def digest(path: Path, kind: str, tell: Tell | None = None) -> str:
    """The checksum of a file, read in pieces."""
    state = hasher(kind)
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            state.update(piece)
            if tell:
                tell(len(piece))
    return state.hexdigest()


def refuse(path: Path, kind: str, expected: str, found: str, name: str) -> UserError:
    """The error for a file that is not the published one."""
    return UserError(
        f"{path} differs from the published {NAMES[kind]} (expected {expected}, found {found}); delete it and get it "
        f"again with `weightaug data fetch {name}`"
    )


def read_checked(path: Path, expected: tuple[str, str] | None, name: str) -> bytes:
    """The bytes of a file, which are those that were checked: for formats that are unsafe to open unseen.

    Args:
        expected: (kind, value) of the published checksum; None where there is none.
        name: the data set's, for the message.
    """
    content = path.read_bytes()
    if expected is not None:
        kind, value = expected
        found = hasher(kind)
        found.update(content)
        if found.hexdigest() != value:
            raise refuse(path, kind, value, found.hexdigest(), name)
    return content


def check(path: Path, expected: tuple[str, str], name: str, tell: Tell | None = None) -> None:
    """Compare a file with its published checksum, or raise the error that names both."""
    kind, value = expected
    found = digest(path, kind, tell)
    if found != value:
        raise refuse(path, kind, value, found, name)


class Recorded:
    """SHA-256 of files for which nobody publishes a checksum, recorded when they were first used.

    From then on they are checked as if it had been published: a file that changes is noticed.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "recorded-sha256.json"

    def check(self, root: Path, part: str, tell: Tell | None = None) -> bool:
        """Compare ``root / part`` with the record, or record it; whether it had been recorded before."""
        known = self._read()
        found = digest(root / part, "sha256", tell)
        if part in known and known[part] != found:
            raise UserError(
                f"{root / part} has changed since it was first used (its SHA-256 was {known[part]}, is {found}); put "
                f"the old file back, or delete the entry in {self.path} if the new one is right"
            )
        if part not in known:
            write_json(self.path, {**known, part: found})
        return part in known

    def _read(self) -> dict[str, str]:
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            raise UserError(f"{self.path} is damaged; delete it to record the files anew") from None
        return known if isinstance(known, dict) else {}
