"""The folder that ``weightaug corrupt`` writes: the copies, and the manifest that says which of them are finished.

``manifest.jsonl`` has the settings as its first line and then one line for every finished file, written after the file
was renamed to its place: a file without its line, or with another checksum, is made again. So a run may end at any
moment and be started again. When a run is finished the lines are sorted by path, so that the folder is the same to the
byte however often the run was interrupted.

What the manifest lists is always made of the source as it is: copies of images that are gone from the source, that
have changed, or whose copies have another name now, are removed with their lines, and named in a warning. A folder
that was made with other settings, or of none of the images that are there, is left alone with an error.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import Timeout

from benchmarks.data.image_folder import named
from benchmarks.errors import UserError
from benchmarks.results.files import alone
from benchmarks.terminal import warn

MANIFEST = "manifest.jsonl"
KEYS = ("path", "sha256", "source", "source_sha256")
"""What the line of a file must have to be of use."""


@dataclass(frozen=True)
class Settings:
    """All that decides what a copy looks like; the first line of the manifest."""

    table: str
    seed: int
    size: int | None  # the middle of so many pixels a side, of the image with its shorter side so long
    format: str  # png or jpeg
    quality: int | None
    parameters: dict[str, list[Any]]  # of all types of the table

    @property
    def suffix(self) -> str:
        return ".png" if self.format == "png" else ".jpg"


class Copy:
    """The copy in ``out``. Entering it locks the folder, reads its manifest and removes what is out of date.

    Args:
        names: source -> copy, relative paths: the images that there are, and what their copies are called.

    Raises:
        UserError: ``out`` can't be written, another process writes there, the manifest's settings are damaged or
            others, or it lists copies of none of these images.
    """

    def __init__(self, out: Path, settings: Settings, names: Mapping[str, str]) -> None:
        self.out, self.settings, self.names = out, settings, names
        self.manifest = out / MANIFEST
        self.lines: dict[str, dict[str, Any]] = {}
        self.of_source: dict[str, list[str]] = {}  # the copies that were there when it was entered

    def __enter__(self) -> Copy:
        with ExitStack() as stack:
            try:
                self.out.mkdir(parents=True, exist_ok=True)
                stack.enter_context(alone(self.out / ".lock"))
            except Timeout:
                raise UserError(
                    f"{self.out}: another `weightaug corrupt` is writing there; wait for it or stop it"
                ) from None
            except (FileExistsError, NotADirectoryError):
                raise UserError(f"--out {self.out} is a file, or lies in one; name a folder") from None
            except OSError as error:
                raise UserError(
                    f"--out {self.out} can't be written to: {error.strerror}; name another folder"
                ) from None
            for kind in self.settings.parameters:
                for partial in (self.out / kind).rglob(".*.partial"):
                    partial.unlink()
            self.lines = {line["path"]: line for line in self._read()}
            self._remove_gone()
            for path, line in self.lines.items():
                self.of_source.setdefault(line["source"], []).append(path)
            self._write_sorted()
            self.file = stack.enter_context(self.manifest.open("ab", buffering=0))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self.stack:
            if kind is None:
                self._write_sorted()

    def has(self, path: str, source: str, source_checksum: str) -> bool:
        """Whether the file is there, whole, and made of this image as it is now."""
        line = self.lines.get(path)
        if line is None or (line["source"], line["source_sha256"]) != (source, source_checksum):
            return False
        file = self.out / path
        return file.is_file() and checksum(file) == line["sha256"]

    def add(self, path: str, content: bytes, **facts: Any) -> None:
        """Write one file and then its line."""
        line = {"path": path, "sha256": hashlib.sha256(content).hexdigest(), **facts}
        _write_whole(self.out / path, content)
        rest = _text(line)
        try:
            while rest:  # a disk that fills up takes a part
                rest = rest[self.file.write(rest) :]
        except OSError as error:
            raise _unwritten(self.manifest, error) from error
        self.lines[path] = line

    def remove_outdated(self, source: str, source_checksum: str) -> bool:
        """Remove what was made of the image when it was another; whether there was anything."""
        made = self.of_source.get(source, ())
        old = [path for path in made if self.lines[path]["source_sha256"] != source_checksum]
        self._remove(old)
        return bool(old)

    def _remove_gone(self) -> None:
        lines = self.lines.values()
        if self.lines and not any(line["source"] in self.names for line in lines):
            sources = sorted({line["source"] for line in lines})
            raise UserError(
                f"{self.out} holds copies of other images ({named(sources)}), of which none is in --source; give "
                "another --out"
            )
        gone = [path for path, line in self.lines.items() if not self._is_called(line)]
        if gone:
            sources = sorted({self.lines[path]["source"] for path in gone})
            self._remove(gone)
            warn(
                f"{self.out}: {len(gone)} copies of images that are gone from the source, or whose copies have "
                f"another name now, were removed: {named(sources)}"
            )

    def _is_called(self, line: dict[str, Any]) -> bool:
        """Whether the image of a line is there and its copies still have that name."""
        target = self.names.get(line["source"])
        return target is not None and line["path"].split("/", 2)[2] == target

    def _remove(self, paths: list[str]) -> None:
        """Files first: a line without its file is harmless. Folders that are empty then go too."""
        for path in paths:
            (self.out / path).unlink(missing_ok=True)
            with suppress(OSError):
                for folder in list(PurePosixPath(path).parents)[:-1]:
                    (self.out / folder).rmdir()
            del self.lines[path]

    def _read(self) -> list[dict[str, Any]]:
        """The lines of the finished files; those that can't be understood count as absent."""
        try:
            head, *lines = self.manifest.read_text("utf-8", "replace").splitlines(keepends=True)
        except (FileNotFoundError, ValueError):  # no manifest, or an empty one
            return []
        except OSError as error:
            raise UserError(f"{self.manifest} can't be read: {error.strerror}") from None
        self._check_settings(_entry(head))
        understood = [entry for line in lines if (entry := _entry(line)) and _is_file(entry)]
        # The last line may be half there, as a kill leaves it: that needs no warning.
        damaged = len([line for line in lines if line.endswith("\n")]) - len(understood)
        if damaged > 0:
            warn(f"{self.manifest}: {damaged} damaged lines; the files that they stood for are made again")
        return understood

    def _check_settings(self, head: dict[str, Any] | None) -> None:
        found = None if head is None else head.get("settings")
        if not isinstance(found, dict):
            raise UserError(
                f"{self.manifest}: its first line, the settings that {self.out} was made with, is damaged; put it "
                "right, or give another --out"
            )
        wanted = json.loads(json.dumps(asdict(self.settings)))
        changed = [key for key in {**wanted, **found} if found.get(key, "") != wanted.get(key, "")]
        if changed:
            raise UserError(
                f"{self.out} was made with other settings ({', '.join(changed)}); give another --out"
            )

    def _write_sorted(self) -> None:
        head = {"settings": asdict(self.settings)}
        whole = b"".join(_text(line) for line in (head, *(self.lines[path] for path in sorted(self.lines))))
        _write_whole(self.manifest, whole)


def _text(line: dict[str, Any]) -> bytes:
    return (json.dumps(line) + "\n").encode()


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _is_file(entry: dict[str, Any]) -> bool:
    """Whether a line has all that is needed, and a path <type>/<severity>/<path> that can't lead out of the folder."""
    if not all(isinstance(entry.get(key), str) for key in KEYS):
        return False
    path = PurePosixPath(entry["path"])
    return len(path.parts) > 2 and str(path) == entry["path"] and not {"..", "/"} & set(path.parts)


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        if path.name == MANIFEST:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path} can't be written: {error.strerror}; all files finished before are kept, and {MANIFEST} lists them; "
        "mend that (make room), and the same command goes on from there"
    )
