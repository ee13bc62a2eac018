"""What is known of a data set's published files: addresses, sizes, checksums. The config group ``files`` is the list.

A file ``configs/files/cifar10.yaml`` declares the files of ``cifar10``; a plug-in may bring its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from benchmarks import registry
from benchmarks.data.files.checks import NAMES
from benchmarks.errors import UserError, unknown_name
from benchmarks.typed import build, read_yaml

SHIFTED_LAYOUTS = ("classes", "labelled")
"""Of sets of test images that are no corruptions of others."""


@dataclass(frozen=True)
class Download:
    """One published file.

    ``contents`` makes it an archive: what lies below the data folder once it is unpacked into ``into``, each with the
    MD5 published for it (text), the number of images in it (a folder), or null where nothing is published.
    """

    file: str  # where it is kept, below the data folder
    url: str | None = None  # null: a person has to get it, see FileSet.prepare
    size: int | None = None  # bytes, as published
    md5: str | None = None
    sha256: str | None = None
    published: str = ""  # who publishes the size and the checksum; where nobody does, why that is known
    into: str = "."
    contents: dict[str, str | int | None] = field(default_factory=dict)

    @property
    def checksum(self) -> tuple[str, str] | None:
        """(kind, value) of the published checksum, the stronger one of two; None where none is published."""
        for kind in NAMES:
            if getattr(self, kind):
                return kind, getattr(self, kind)
        return None

    @property
    def parts(self) -> dict[str, str | int | None]:
        """What is read in the end: the contents of an archive, or the file itself."""
        return self.contents or {self.file: None}

    def describe(self) -> str:
        """File, size and checksum for a message."""
        size = f"{self.size:,} bytes" if self.size else "size not published"
        kind, value = self.checksum or ("", "")
        return (
            f"{self.file} ({size}, {NAMES[kind]} {value})" if kind else f"{self.file} ({size}, no checksum)"
        )


@dataclass(frozen=True)
class FileSet:
    """All published files of one data set, or of one published set of changed test images.

    ``layout`` says how a set of changed test images lies in ``folder``: see :mod:`benchmarks.data.corrupted`
    and :mod:`benchmarks.data.shifted`.
    """

    name: str
    page: str
    description: str = ""
    prepare: str = ""  # how a person gets what no program can fetch
    downloads: tuple[Download, ...] = ()
    folder: str = ""
    layout: str = ""
    classes: str = (
        ""  # the subset of ImageNet's classes that is in it; see benchmarks/data/imagenet_classes.txt
    )
    accepted: dict[str, list[int]] = field(
        default_factory=dict
    )  # class folder -> the ImageNet labels it stands for
    central: float = (
        1.0  # share of the side that is seen, enlarged to the whole; see benchmarks/data/corrupted.py
    )
    squashed: bool = False  # to a square before its middle is cut out; see benchmarks/data/shifted.py

    @property
    def sets(self) -> dict[str, str]:
        """The sets of shifted images in it and where they lie: ``imagenet_a``, or ``imagenet_d.texture`` of several."""
        parts = [part for download in self.downloads for part in download.parts]
        if len(parts) == 1:
            return {self.name: parts[0]}
        return {f"{self.name}.{part.rpartition('/')[2]}": part for part in parts}

    def absent(self, root: Path) -> dict[str, list[str]]:
        """By download, which of its parts are not below ``root``. Empty where everything is there."""
        lacking = {
            download.file: [part for part in download.parts if not (root / part).exists()]
            for download in self.downloads
        }
        return {file: parts for file, parts in lacking.items() if parts}

    def expected(self, download: Download, root: Path) -> str:
        """Place, size, checksum and source of one published file, for a message."""
        source = f"from {download.url}" if download.url else f"by hand: {self.prepare} ({self.page})"
        return f"expected in {root.resolve()}: {download.describe()}, {source}"

    def missing(self, root: Path, variable: str) -> str | None:
        """One line that says what is not there, where it should be and how to get it; None if all is there."""
        absent = self.absent(root)
        if not absent:
            return None
        parts = [part for some in absent.values() for part in some]
        named = ", ".join(parts[:3]) + (f" and {len(parts) - 3} more" if len(parts) > 3 else "")
        needed = [download for download in self.downloads if download.file in absent]
        fetched = [f"{download.describe()} from {download.url}" for download in needed if download.url]
        how = [f"`weightaug data fetch {self.name}` (or download=true) gets it: {'; '.join(fetched)}"]
        if len(fetched) < len(needed):
            by_hand = [download.describe() for download in needed if not download.url]
            how = [*how[: bool(fetched)], f"{'; '.join(by_hand)}: {self.prepare} ({self.page})"]
        return (
            f"data set {self.name} lacks {named} in {root.resolve()} (set {variable} to the folder that holds it); "
            f"{'; '.join(how)}"
        )


@cache
def file_set(name: str) -> FileSet:
    """The declared files called ``name``."""
    known = registry.entries("files")
    if name not in known:
        raise unknown_name("data set", name, known, hint="; see `weightaug data list`")
    raw = read_yaml(known[name].path)
    declared = build(FileSet, {"name": name, **raw}, f"files/{name}.yaml")
    for download in declared.downloads:
        for kind, digits in (("md5", 32), ("sha256", 64)):
            value = getattr(download, kind)
            if value is not None and (len(value) != digits or set(value) - set("0123456789abcdef")):
                raise UserError(
                    f"files/{name}.yaml: {kind} {value!r} of {download.file} is not {digits} digits"
                )
    return declared


def shifted_names() -> list[str]:
    """The declared sets of test images that are no corruptions of others: what ``evaluation.shifted`` may name."""
    return [name for name in registry.entries("files") if file_set(name).layout in SHIFTED_LAYOUTS]
