"""The card store: a folder in which finished cells are cards, and running ones are locked and show a heartbeat.

cards/<id>.json           one finished cell each; appears by atomic rename and is never changed
weights/<id>.safetensors  its trained weights, there before the card; none with weights=drop or after divergence
work/<id>/lock            held by the process that runs the cell; the system frees it when that process dies
work/<id>/heartbeat.json  who runs the cell, since when, how far; written anew every second
work/<id>/checkpoint.pt   where to continue; checkpoint.previous.pt where that can't be used
work/<id>/failure.json    why the last try failed
work/<id>/stuck.txt       where it hung, if it did
work/<id>/damaged/        files of it that could not be used; kept, unlike the others, when the cell is finished
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from filelock import FileLock, Timeout

from benchmarks.errors import UserError, one_line
from benchmarks.results.card import Card, DamagedCardError, check_card
from benchmarks.results.files import set_aside, write_json

if TYPE_CHECKING:
    from benchmarks.cell import Cell

BEAT_SECONDS = 1.0
STALE_SECONDS = 60.0
"""A heartbeat of another machine older than this is a dead process's."""


class Store:
    """All cards below one folder. Any number of processes may use it at once.

    Args:
        read_only: nothing is made or written, and the folder must be a store already.
    """

    def __init__(self, folder: Path, read_only: bool = False) -> None:
        self.folder = folder
        if read_only:
            if not self.cards.is_dir():
                raise UserError(f"there is no card store in {folder}; say where it is (store=FOLDER)")
            return
        try:
            self.cards.mkdir(parents=True, exist_ok=True)
            (folder / "work").mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=self.cards):
                pass  # a store that can't be written to is found out now, not after the training
        except OSError as error:
            raise UserError(
                f"the card store {folder} can't be used: {error.strerror}; choose another (store=FOLDER)"
            ) from error

    @property
    def cards(self) -> Path:
        return self.folder / "cards"

    def work(self, cell_id: str) -> Path:
        return self.folder / "work" / cell_id

    def has(self, cell_id: str) -> bool:
        return (self.cards / f"{cell_id}.json").is_file()

    def weights(self, cell_id: str) -> Path:
        return self.folder / "weights" / f"{cell_id}.safetensors"

    def read(self, cell_id: str, cell: Cell | None = None) -> Card | None:
        """The card of a finished cell, or None. A damaged one is set aside, so that its cell is run again.

        Args:
            cell: the cell itself where it is known; a card that states other settings counts as damaged.
        """
        return read_card(self.cards / f"{cell_id}.json", cell)

    def write(self, card: Card) -> None:
        """Keep a finished cell for good."""
        write_json(self.cards / f"{card['id']}.json", check_card(card))

    @contextmanager
    def claim(self, cell_id: str) -> Iterator[Heartbeat | None]:
        """The exclusive right to run a cell, as its heartbeat; None where somebody else has it."""
        work = self.work(cell_id)
        work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(work / "lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            yield None
            return
        try:
            if self._runs_elsewhere(cell_id):
                yield None
                return
            with Heartbeat(work / "heartbeat.json") as heartbeat:
                yield heartbeat
            if self.has(cell_id):
                _clear(work)
        finally:
            lock.release()

    def _runs_elsewhere(self, cell_id: str) -> bool:
        """Whether a process of another machine, whose lock may not be seen here, is at work on the cell."""
        beat = self.heartbeat(cell_id)
        return (
            bool(beat) and beat["host"] != socket.gethostname() and time.time() - beat["time"] < STALE_SECONDS
        )

    def heartbeat(self, cell_id: str) -> dict[str, Any]:
        """What the process that runs the cell last said of itself; empty where there is none."""
        return _work_file(self.work(cell_id) / "heartbeat.json", ("host", "time", "fraction"))

    def running(self, cell_id: str) -> dict[str, Any]:
        """The heartbeat of a cell that is being run; empty where nobody runs it, as after a process was killed."""
        beat = self.heartbeat(cell_id)
        here = bool(beat) and beat["host"] == socket.gethostname()
        if not beat or time.time() - beat["time"] > STALE_SECONDS:
            return {}
        return {} if here and not psutil.pid_exists(beat.get("pid", 0)) else beat

    def fail(self, cell_id: str, session: str, error: str, details: str) -> None:
        write_json(
            self.work(cell_id) / "failure.json",
            {"session": session, "error": error, "details": details, "time": time.time()},
        )

    def failure(self, cell_id: str) -> dict[str, Any]:
        """Why the last try of the cell failed; empty where it did not."""
        return _work_file(self.work(cell_id) / "failure.json", ("session", "error"))


def _clear(work: Path) -> None:
    """Remove what a finished cell leaves, but nothing that was set aside."""
    if not (work / "damaged").exists():
        shutil.rmtree(work, ignore_errors=True)
        return
    for path in work.iterdir():
        if path.is_file():
            path.unlink(missing_ok=True)


def read_card(path: Path, cell: Cell | None = None) -> Card | None:
    """One card file, or None where there is none. A damaged one is set aside with a warning.

    Args:
        cell: the cell itself where it is known; a card that states other settings counts as damaged.
    """
    try:
        return load_card(path, cell)
    except FileNotFoundError:
        return None
    except DamagedCardError as error:
        set_aside(path, f"damaged card ({one_line(error)}); its cell counts as not run")
        return None


def load_card(path: Path, cell: Cell | None = None) -> Card:
    """The card in a file named after its cell.

    Raises:
        FileNotFoundError: there is none.
        DamagedCardError: the file is no valid card, or that of another cell.
    """
    card = parse_card(path)
    if card["id"] != path.stem:
        raise DamagedCardError(f"is the card of cell {card['id']}")
    if cell is not None and (setting := cell.contradiction(card["cell"])):
        raise DamagedCardError(f"states another {setting} than the cell that it is named after")
    return card


def parse_card(path: Path) -> Card:
    """The card in a file.

    Raises:
        FileNotFoundError: there is none.
        DamagedCardError: the file is no valid card.
    """
    try:
        return card_from(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedCardError(one_line(error)) from error


def card_from(content: bytes) -> Card:
    """The card in a file's content, or a :class:`DamagedCardError`."""
    try:
        return check_card(json.loads(content))
    except (ValueError, RecursionError) as error:
        raise DamagedCardError(one_line(error)) from error


def _work_file(path: Path, needed: tuple[str, ...]) -> dict[str, Any]:
    """What a file of a running or failed cell says; empty where it is missing or makes no sense."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and all(key in content for key in needed) else {}


class Heartbeat:
    """Says once a second that its process lives, how far it is, and watches the memory it takes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fraction = 0.0
        self.peak_memory = 0
        self._started = time.time()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Heartbeat:
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.path.unlink(missing_ok=True)

    def _run(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            self._beat()

    def _beat(self) -> None:
        self.watch_memory()
        beat = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": self._started,
            "time": time.time(),
            "fraction": self.fraction,
        }
        write_json(self.path, beat)

    def watch_memory(self) -> int:
        """The largest resident memory of this process, in bytes, seen since the cell began."""
        self.peak_memory = max(self.peak_memory, psutil.Process().memory_info().rss)
        return self.peak_memory
