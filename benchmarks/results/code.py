"""Which code makes cards: two machines with different code must not fill one table without anybody's noticing.

A store states in ``code.json`` the code whose workers may start cells. Other code may take its place while nobody is
at work, which is everyday life: finished cards keep the commit that made them. It is refused while somebody is.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.errors import UserError
from benchmarks.results.provenance import commit

PACKAGES = ("weightaug", "baselines", "benchmarks", "configs")
SUFFIXES = (".py", ".yaml")
MAKE_NO_CARD = (
    *(f"benchmarks/{part}" for part in ("commands", "compare", "reports", "simulation", "speed", "tables")),
    *(f"configs/{group}" for group in ("published", "table")),
)
"""Parts that may differ."""


@dataclass(frozen=True)
class Code:
    """A state of the code. Two are the same whose files are, whether they were committed and installed or not."""

    digest: str

    @property
    def name(self) -> str:
        """For a person: version, commit, whether it was changed, and the digest that decides."""
        try:
            release = f"weightaug {version('weightaug')}"
        except PackageNotFoundError:
            release = "weightaug"
        revision, changed = commit()
        where = f" of commit {revision[:10]}{' with changes' if changed else ''}" if revision else ""
        return f"{release}{where} (code {self.digest})"

    def record(self) -> dict[str, Any]:
        """What ``code.json`` says."""
        return {"digest": self.digest, "name": self.name, "host": socket.gethostname()}


@cache
def code() -> Code:
    """The code of this program, as its files are now."""
    root = Path(__file__).resolve().parents[2]
    digest = sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.suffix in SUFFIXES and not name.startswith(MAKE_NO_CARD):
                digest.update(f"{name}\n{sha256(path.read_bytes()).hexdigest()}\n".encode())
    return Code(digest.hexdigest()[:12])


def other_code(folder: Path, theirs: str, mine: Code, who: str) -> UserError:
    """The error where two codes would write to one store."""
    return UserError(
        f"the card store {folder} is being filled by {theirs}: {who}; this is {mine.name}. Wait for the other to end, "
        "run the same code, use another store (store=FOLDER), or let one table be made by both "
        "(mixed_versions=allow)"
    )
