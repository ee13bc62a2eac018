"""`weightaug data`: the published files that data sets are read from."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.errors import UserError, unknown_name

if TYPE_CHECKING:
    from benchmarks.data.files.declared import Download, FileSet
    from benchmarks.runtime import Runtime

HELP = "the files of data sets: list, where, fetch or verify them"
ACTIONS = ("list", "where", "fetch", "verify")
KEYS = ("data",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", metavar="ACTION", help=" | ".join(ACTIONS))
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="data sets, see `weightaug data list`; and data=FOLDER"
    )


def run(options: argparse.Namespace) -> int:
    if options.action not in ACTIONS:
        raise unknown_name("action", options.action, ACTIONS)
    from benchmarks import registry
    from benchmarks.data.files.declared import file_set

    names = [text for text in options.names if "=" not in text]
    runtime = _runtime([text for text in options.names if "=" in text])
    if options.action == "fetch" and not names:
        raise UserError("name what is to be fetched, e.g. `weightaug data fetch cifar10`")
    sets = [file_set(name) for name in names or registry.entries("files")]
    action = {"list": _list, "where": _where, "fetch": _fetch, "verify": _verify}[options.action]
    return action(sets, runtime.data_folder, bool(names))


def _runtime(overrides: list[str]) -> Runtime:
    from benchmarks.runtime import Runtime

    given = dict(text.split("=", 1) for text in overrides)
    for key in given:
        if key not in KEYS:
            raise unknown_name("key", key, KEYS)
    return Runtime(data=given.get("data", ""))


def _state(files: FileSet, root: Path) -> str:
    absent = files.absent(root)
    if not files.downloads:
        return "embedded"
    if not absent:
        return "there"
    parts = sum(len(download.parts) for download in files.downloads)
    return "absent" if sum(map(len, absent.values())) == parts else "incomplete"


def _list(sets: list[FileSet], root: Path, named: bool) -> int:
    """What there is to have and what of it is there. Nothing is read or fetched."""
    from benchmarks.data.files.checks import NAMES

    rows = []
    for files in sets:
        sizes = [download.size for download in files.downloads]
        total = sum(size or 0 for size in sizes)
        kinds = ", ".join(sorted({NAMES[d.checksum[0]] if d.checksum else "none" for d in files.downloads}))
        size = f"{total / 1e6:,.0f} MB" if all(sizes) and total else ""
        rows.append((files.name, _state(files, root), size, kinds, files.description))
    rows.insert(0, ("name", "state", "size", "checksum", "what"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, state, size, kinds, what in rows:
        print(f"{name:{widths[0]}}  {state:{widths[1]}}  {size:>{widths[2]}}  {kinds:{widths[3]}}  {what}")
    print(f"data folder: {root.resolve()} (WEIGHTAUG_DATA)")
    return 0


def _where(sets: list[FileSet], root: Path, named: bool) -> int:
    """Where everything is or should be, and where it comes from."""
    for files in sets:
        print(f"{files.name}: {_state(files, root)}; {files.page}")
        for download in files.downloads:
            print(f"  {download.describe()}")
            print(f"    from {download.url or files.prepare}")
            print(f"    checksum published: {download.published}")
            place = (root / os.path.commonpath(download.parts)).resolve()
            print(f"    {'there' if place.exists() else 'expected'}: {place}")
    return 0


def _fetch(sets: list[FileSet], root: Path, named: bool) -> int:
    """Have all files of the sets there and checked; what is there and right is left alone."""
    from benchmarks.data.files.fetch import obtain
    from benchmarks.runtime import DATA_VARIABLE

    for files in sets:
        for download in files.downloads:
            problems = _problems(files, download, root)
            if problems and not download.url:
                raise UserError(files.missing(root, DATA_VARIABLE) or problems[0])
            if not problems:
                continue
            obtain(files, download, root)
        print(f"{files.name}: {_state(files, root)}, checked")
    return 0


def _verify(sets: list[FileSet], root: Path, named: bool) -> int:
    """Compare all files that are there with what is published for them, however long that takes."""
    found = 0
    for files in sets:
        state = _state(files, root)
        if state in ("absent", "embedded") and not named:
            continue
        problems = [problem for download in files.downloads for problem in _problems(files, download, root)]
        for problem in problems:
            print(f"{files.name}: {problem}")
        if not problems:
            print(f"{files.name}: {state}, right")
        found += len(problems)
    if found:
        raise UserError(
            f"{found} of the files are missing or not the published ones; see `weightaug data fetch NAME`"
        )
    return 0


def _problems(files: FileSet, download: Download, root: Path) -> list[str]:
    """What is wrong with one published file, or with what was unpacked from it; a line for each, with its source."""
    from benchmarks.data.files.checks import Recorded, check
    from benchmarks.data.image_folder import count_images

    problems = []
    for part, expected in download.parts.items():
        path = root / part
        checksum = download.checksum if not download.contents else None
        checksum = ("md5", expected) if isinstance(expected, str) else checksum
        try:
            if not path.exists():
                problems.append(f"{path} is missing")
            elif checksum:
                check(path, checksum, files.name)
            elif isinstance(expected, int):
                count = count_images(path)
                if count != expected:
                    problems.append(f"{path} holds {count:,} images, expected {expected:,}")
            elif path.is_file():
                Recorded(root).check(root, part)
        except UserError as error:
            problems.append(str(error))
    return [f"{problem}; {files.expected(download, root)}" for problem in problems]
