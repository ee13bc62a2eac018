"""A corrupted copy of a folder of images, as ``weightaug corrupt`` makes it.

Copies lie in ``<out>/<type>/<severity>/<path in the source>``, beside the ``manifest.jsonl`` that
:mod:`~benchmarks.data.corruptions.manifest` keeps; so a run may end at any moment and be started again.

An image's random numbers depend on its path in the source, not on its place in a list: a copy is the same whatever
else is in the folder, and whatever part of it was there already.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from benchmarks.data.corruptions import ParameterTable, corrupt
from benchmarks.data.corruptions.manifest import Copy, Settings, checksum
from benchmarks.data.corruptions.pictures import Picture, UnreadableError, read_picture, write_picture
from benchmarks.data.image_folder import SUFFIXES
from benchmarks.errors import UserError
from weightaug.random import derive_seed

BATCH_VALUES = 1 << 22
WAITING_VALUES = 1 << 25
"""Images of one size are corrupted together, up to so many values; so many wait at most for others of their size."""


@dataclass
class Outcome:
    """What a run did: counts of files made and found finished, and why images failed, by their path."""

    made: int = 0
    found: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)  # images whose copies were of an earlier version of them
    others: list[str] = field(default_factory=list)  # files of the source that are no images by their name


@dataclass(frozen=True)
class Task:
    """One image of the source and the copies of it that are still to be made."""

    source: str  # relative path
    target: str  # relative path below <out>/<type>/<severity>
    missing: tuple[tuple[str, int], ...]


def find_images(source: Path) -> tuple[list[str], list[str]]:
    """The relative paths of all images below ``source``, and of all other files, sorted."""
    files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    images = [path.as_posix() for path in files if path.suffix.lower() in SUFFIXES]
    return images, [path.as_posix() for path in files if path.suffix.lower() not in SUFFIXES]


def target_names(images: Sequence[str], suffix: str) -> dict[str, str]:
    """Source -> copy, no two alike, whatever the names are, and in whatever order they come.

    The copy's suffix takes the place of the image's own. Where two images would have one name so, or a folder has it,
    it is put behind the image's whole name instead, again and again until the name is free.
    """
    folders = {str(folder) for image in images for folder in PurePosixPath(image).parents}
    short = {image: str(PurePosixPath(image).with_suffix(suffix)) for image in sorted(images)}
    shared = Counter(short.values())
    names = {image: name for image, name in short.items() if shared[name] == 1 and name not in folders}
    taken = {*folders, *names.values()}
    for image in short:
        if image not in names:
            name = image + suffix
            while name in taken:
                name += suffix
            names[image] = name
            taken.add(name)
    return {image: names[image] for image in short}


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
        raise UserError(
            f"{source} has no image ({', '.join(sorted(SUFFIXES))}) and {len(others)} other files"
        )
    outcome = Outcome(others=others)
    combinations = [(name, severity) for name in types for severity in severities]
    total, settled = len(images) * len(combinations), 0
    names = target_names(images, settings.suffix)
    with Copy(out, settings, names) as copy, ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        worker = Copying(source, copy, outcome, settings, threads, device)
        for batch in worker.batches(names, combinations):
            for done in worker.corrupt(batch):
                settled += done
                yield settled, total, outcome
        yield total, total, outcome


@dataclass
class Copying:
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
                if self.copy.remove_outdated(image, digest):
                    self.outcome.changed.append(image)
                missing = tuple(c for c in wanted if not self.copy.has(_place(*c, target), image, digest))
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
            table: ParameterTable = self.settings.parameters
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
