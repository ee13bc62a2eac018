"""Which code makes cards: two machines with different code must not fill one table without anybody's noticing.

A store states in ``code.json`` the code whose workers may start cells. Other code may take its place while nobody is
at work, which is everyday life: finished cards keep the commit that made them. It is refused while somebody is.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import registry
from benchmarks.errors import UserError
from benchmarks.results.provenance import PACKAGES as RECORDED
from benchmarks.results.provenance import commit

PACKAGES = ("weightaug", "baselines", "benchmarks", "configs")
SUFFIXES = (".py", ".yaml", ".txt")
MAKE_NO_CARD = (
    *(f"benchmarks/{part}" for part in ("commands", "compare", "reports", "simulation", "speed", "tables")),
    *(f"configs/{group}" for group in ("published", "table")),
)
"""Parts that may differ."""
WHOLE_BYTES = 1 << 20
"""Of a larger file of a plug-in, its size and so much of its beginning and of its end count."""


@dataclass(frozen=True)
class Code:
    """A state of the code. Two are the same whose files are, whether they were committed and installed or not.

    Args:
        digest: of our own.
        plugins: digests of the plug-ins, by name. One that only one of two has makes no cell that both could make.
    """

    digest: str
    plugins: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For a person: version, commit, whether it was changed, and the digest that decides."""
        revision, changed = commit()
        where = f" of commit {revision[:10]}{' with changes' if changed else ''}" if revision else ""
        return f"{_release('weightaug')}{where} (code {self.digest})"

    def record(self) -> dict[str, Any]:
        """What ``code.json`` says."""
        own = {"digest": self.digest, "name": self.name, "host": socket.gethostname()}
        return {**own, "plugins": dict(self.plugins)}

    def differs(self, stated: Mapping[str, Any]) -> bool:
        """Whether the code of a :meth:`record` is another."""
        return stated.get("digest") != self.digest or bool(self.other_plugins(stated))

    def other_plugins(self, stated: Mapping[str, Any]) -> list[str]:
        """The plug-ins that both have, in different states."""
        theirs = stated.get("plugins", {})
        return sorted(name for name in self.plugins.keys() & theirs if self.plugins[name] != theirs[name])

    def joined(self, stated: Mapping[str, Any]) -> dict[str, Any]:
        """What ``code.json`` is to say where it says ``stated``: of the same code, the plug-ins of both."""
        if not stated or self.differs(stated):
            return self.record()
        plugins = {**stated.get("plugins", {}), **self.plugins}
        return {**stated, "plugins": plugins} if plugins else dict(stated)


def _release(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


@cache
def code() -> Code:
    """The code of this program and of the plug-ins, as the files are now."""
    root = Path(__file__).resolve().parents[2]
    found = sorted(path for package in PACKAGES for path in (root / package).rglob("*"))
    own = (
        path
        for path in found
        if path.suffix in SUFFIXES and not path.relative_to(root).as_posix().startswith(MAKE_NO_CARD)
    )
    plugins = registry.plugin_files((*PACKAGES, *RECORDED))
    return Code(_digest(root, own), {name: _digest(*files) for name, files in plugins.items()})


def _digest(root: Path, files: Iterable[Path]) -> str:
    """12 hexadecimal digits that depend on the names and what the files hold, not on where ``root`` is."""
    digest = sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(root).as_posix()}\n{sha256(_content(path)).hexdigest()}\n".encode())
    return digest.hexdigest()[:12]


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    if size <= 2 * WHOLE_BYTES:
        return path.read_bytes()
    with path.open("rb") as file:
        begin = file.read(WHOLE_BYTES)
        file.seek(-WHOLE_BYTES, 2)
        return b"%d\n%s%s" % (size, begin, file.read())


def other_code(folder: Path, stated: Mapping[str, Any], mine: Code, who: str) -> UserError:
    """The error where two codes would write to one store."""
    theirs, ours = str(stated["name"]), mine.name
    for plugin in mine.other_plugins(stated):
        theirs += f" with plug-in {plugin} (code {stated['plugins'][plugin]})"
        ours += f" with plug-in {_release(plugin)} (code {mine.plugins[plugin]})"
    return UserError(
        f"the card store {folder} is being filled by {theirs}: {who}; this is {ours}. Wait for the other to end, "
        "run the same code, use another store (store=FOLDER), or let one table be made by both "
        "(mixed_versions=allow)"
    )
