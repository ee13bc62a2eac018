"""What a person sees of a download: a bar, or one line for each step where there is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from benchmarks.data.files.checks import Tell
from benchmarks.terminal import note


class Watcher:
    """Says what is being done in a line on stderr. ``begin`` returns what is then told of every piece that is done."""

    def begin(self, what: str, total: int | None, done: int = 0) -> Tell:
        size = f", {total:,} bytes" if total else ""
        note(f"{what}{size}{f', {done:,} of them there' if done else ''}")
        return lambda count: None


class _Bar(Watcher):
    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def begin(self, what: str, total: int | None, done: int = 0) -> Tell:
        task = self.progress.add_task(what, total=total, completed=done)
        return lambda count: self.progress.advance(task, count)


@contextmanager
def watching() -> Iterator[Watcher]:
    """What shows on stderr what is done."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Watcher()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        yield _Bar(progress)
