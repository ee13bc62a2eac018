"""A corrupted copy of a folder of images, as ``weightaug corrupt`` makes it.

Copies lie in ``<out>/<type>/<severity>/<path in the source>``. ``manifest.jsonl`` beside them has the settings as its
first line and then one line for every finished file, written after the file was renamed to its place: a file without
its line, or with another checksum, is made again. So a run may end at any moment and be started again.

An image's random numbers depend on its path in the source, not on its place in a list: a copy is the same whatever
else is in the folder, and whatever part of it was there already.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from benchmarks.data.corruptions import Table, corrupt
from benchmarks.data.corruptions.pictures import Picture, UnreadableError, read_picture, write_picture
from benchmarks.errors import UserError
from weightaug.random import derive_seed

MANIFEST = "manifest.jsonl"
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
BATCH_VALUES = 1 << 22
WAITING_VALUES = 1 << 25
"""Images of one size are corrupted together, up to so many values; so many wait at most for others of their size."""


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


@dataclass
class Outcome:
    """What a run did: counts of files made and found finished, and why images failed, by their path."""

    made: int = 0
    found: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    others: int = 0  # files of the source that are no images by their name


@dataclass(frozen=True)
class Task:
    """One image of the source and the copies of it that are still to be made."""

    source: str  # relative path
    target: str  # relative path below <out>/<type>/<severity>
    missing: tuple[tuple[str, int], ...]


class Copy:
    """The copy in ``out``. Entering it locks the folder and reads its manifest.

    Raises:
        UserError: another process writes there, or an earlier run had other settings.
    """

    def __init__(self, out: Path, settings: Settings) -> None:
        self.out, self.settings = out, settings
        self.lines: dict[str, dict[str, Any]] = {}
        self.lock = FileLock(str(out / ".lock"), timeout=0)

    def __enter__(self) -> Copy:
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            self.lock.acquire()
        except Timeout:
            raise UserError(
                f"{self.out}: another `weightaug corrupt` is writing there; wait for it or stop it"
            ) from None
        for partial in self.out.rglob(".*.partial"):
            partial.unlink()
        head, lines = self._read()
        wanted = json.loads(json.dumps({"settings": asdict(self.settings)}))
        if head is not None and head != wanted:
            changed = [
                key for key, value in wanted["settings"].items() if head.get("settings", {}).get(key) != value
            ]
            raise UserError(
                f"{self.out} was made with other settings ({', '.join(changed) or 'unknown'}); give another --out"
            )
        self.lines = {line["path"]: line for line in lines}
        # A line may have been cut off in the middle: begin with whole ones.
        whole = "".join(json.dumps(line) + "\n" for line in (wanted, *self.lines.values()))
        _write_whole(self.out / MANIFEST, whole.encode())
        self.file = (self.out / MANIFEST).open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.lock.release()

    def _read(self) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        path = self.out / MANIFEST
        if not path.exists():
            return None, []
        entries = [
            entry for line in path.read_text("utf-8", "replace").splitlines() if (entry := _entry(line))
        ]
        return (entries[0], [entry for entry in entries[1:] if "path" in entry]) if entries else (None, [])

    def has(self, path: str, source_checksum: str) -> bool:
        """Whether the file is there, whole, and made of the source as it is now."""
        line = self.lines.get(path)
        if line is None or line["source_sha256"] != source_checksum:
            return False
        file = self.out / path
        return file.is_file() and checksum(file) == line["sha256"]

    def add(self, path: str, content: bytes, **facts: Any) -> None:
        """Write one file and then its line."""
        _write_whole(self.out / path, content)
        self.file.write(
            json.dumps({"path": path, "sha256": hashlib.sha256(content).hexdigest(), **facts}) + "\n"
        )
        self.file.flush()


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) else None


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            f"{path}: {error.strerror}; all files finished before are kept, the same command goes on from there"
        ) from error


def find_images(source: Path) -> tuple[list[str], int]:
    """The relative paths of all images below ``source``, sorted, and how many other files there are."""
    files = [path for path in source.rglob("*") if path.is_file()]
    images = sorted(path.relative_to(source).as_posix() for path in files if path.suffix.lower() in SUFFIXES)
    return images, len(files) - len(images)


def target_names(images: Sequence[str], suffix: str) -> dict[str, str]:
    """Source -> copy: with the copy's suffix in place of its own, or after it where two would have one name."""
    short = {image: str(Path(image).with_suffix(suffix)) for image in images}
    shared = Counter(short.values())
    return {image: name if shared[name] == 1 else image + suffix for image, name in short.items()}


def make_copy(
    source: Path,
    out: Path,
    settings: Settings,
    types: Sequence[str],
    severities: Sequence[int],
    device: str = "cpu",
) -> Iterator[tuple[int, int, Outcome]]:
    """Make what is missing of the copy; yields (files settled, files in all, outcome) as it goes.

    Raises:
        UserError: no image in ``source``, ``out`` within it, or a file that can't be written.
    """
    if not source.is_dir():
        raise UserError(f"--source {source} is no folder")
    if out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"--out {out} lies in --source {source}: the copies would be taken for images of it")
    images, others = find_images(source)
    if not images:
        raise UserError(f"{source} has no image ({', '.join(SUFFIXES)}) and {others} other files")
    outcome = Outcome(others=others)
    combinations = [(name, severity) for name in types for severity in severities]
    total, settled = len(images) * len(combinations), 0
    with Copy(out, settings) as copy, ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        worker = Worker(source, copy, outcome, settings, threads, device)
        for batch in worker.batches(target_names(images, settings.suffix), combinations):
            for done in worker.corrupt(batch):
                settled += done
                yield settled, total, outcome
        yield total, total, outcome


@dataclass
class Worker:
    """The steps of :func:`make_copy`."""

    source: Path
    copy: Copy
    outcome: Outcome
    settings: Settings
    threads: ThreadPoolExecutor
    device: str

    def batches(
        self, names: dict[str, str], combinations: Iterable[tuple[str, int]]
    ) -> Iterator[list[tuple[Task, Picture]]]:
        """Images of one shape together; finished ones and those that can't be read are settled here."""
        waiting: dict[tuple[int, ...], list[tuple[Task, Picture]]] = {}
        wanted = tuple(combinations)
        for image, target in names.items():
            try:
                digest = checksum(self.source / image)
                missing = tuple(c for c in wanted if not self.copy.has(_place(*c, target), digest))
                self.outcome.found += len(wanted) - len(missing)
                if not missing:
                    continue
                picture = read_picture(self.source / image, digest, self.settings.size)
            except (UnreadableError, OSError) as error:
                self.outcome.failed[image] = str(error)
                continue
            waiting.setdefault(tuple(picture.pixels.shape), []).append(
                (Task(image, target, missing), picture)
            )
            values = {shape: len(batch) * prod(shape) for shape, batch in waiting.items()}
            largest = max(values, key=values.__getitem__)
            if values[largest] >= BATCH_VALUES or sum(values.values()) >= WAITING_VALUES:
                yield waiting.pop(largest)
        yield from waiting.values()

    def corrupt(self, batch: list[tuple[Task, Picture]]) -> Iterator[int]:
        """Make what is missing of these images; yields how many files each step made."""
        for name, severity in sorted({combination for task, _ in batch for combination in task.missing}):
            part = [(task, picture) for task, picture in batch if (name, severity) in task.missing]
            images = torch.stack([picture.pixels for _, picture in part]).to(self.device)
            numbers = torch.tensor([derive_seed("image", task.source) for task, _ in part])
            table: Table = self.settings.parameters
            corrupted = corrupt(images, name, severity, table, numbers, self.settings.seed).cpu()
            files = self.threads.map(self._encode, [picture for _, picture in part], corrupted)
            for (task, picture), content in zip(part, files, strict=True):
                self.copy.add(
                    _place(name, severity, task.target),
                    content,
                    type=name,
                    severity=severity,
                    source=task.source,
                    source_sha256=picture.checksum,
                    source_mode=picture.mode,
                )
            self.outcome.made += len(part)
            yield len(part)

    def _encode(self, picture: Picture, corrupted: Tensor) -> bytes:
        return write_picture(corrupted, picture.alpha, self.settings.format, self.settings.quality)


def _place(name: str, severity: int, target: str) -> str:
    return f"{name}/{severity}/{target}"
