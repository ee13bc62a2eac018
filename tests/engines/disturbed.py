"""A small table on an engine that is disturbed, and what it must be equal to; with a record of what was done when."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from command_line import plugin_path, start

from benchmarks.results.store import Store

RECORDS = "RECORDS"
"""The variable of the environment that names the folder in which records are kept."""
PATIENCE_SECONDS = 300.0
EPOCHS = 10
TABLE = ["signnoise/tiny", "--scale", "smoke"]
SETTINGS = [
    "device=cpu",
    "threads=1",
    "engine=eager",
    "wandb=disabled",
    "checkpoint_seconds=0.2",
    "lease_seconds=10",
]
SETTINGS += [f"recipe.epochs={EPOCHS}", "dataset.corruptions={contrast: [0.4, 0.3, 0.2, 0.1, 0.05]}"]
CELLS = 4  # two rows, two seeds
SAME = ("cell", "status", "metrics", "curve", "weights")
"""What of a card no disturbance may change; weights are compared by the SHA-256 of their file."""

T = TypeVar("T")


class Table:
    """The store of one run of the table, and the command that fills it, with ``environment``."""

    def __init__(self, folder: Path, record: Record, environment: Mapping[str, str] = os.environ) -> None:
        self.folder, self.record, self.environment = folder, record, environment
        self.command: subprocess.Popen[str] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def reproduce(self, *settings: str) -> None:
        shown = [re.sub("(address)=.*", r"\1=HOST:PORT", text) for text in settings]
        self.record(f"`weightaug reproduce {' '.join([*TABLE, *shown])}`")
        self.command = self._start("reproduce", *TABLE, *SETTINGS, *settings)

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        path = plugin_path(self.folder)
        return start(self.folder, *arguments, path=path, among=self.environment)

    def finish(self) -> str:
        """Wait for the command, which must succeed; what it said to the person."""
        assert self.command
        try:
            _, errors = self.command.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.command.terminate()
            raise AssertionError(self.command.communicate()[1]) from None
        assert self.command.returncode == 0, errors
        return errors

    def report(self) -> str:
        """Make the report again from the cards alone; what is printed."""
        command = self._start("report", *TABLE, *SETTINGS)
        output, errors = command.communicate(timeout=PATIENCE_SECONDS)
        assert command.returncode == 0, errors
        return output

    def cards(self) -> dict[str, dict[str, Any]]:
        return {
            path.stem: json.loads(path.read_text())
            for path in (self.folder / "runs" / "cards").glob("*.json")
        }

    def running(self) -> dict[str, dict[str, Any]]:
        """Of each cell that is in the middle of its training and has a checkpoint, who runs it."""
        if not (self.folder / "runs" / "cards").is_dir():
            return {}
        store = Store(self.folder / "runs", read_only=True)
        found = {}
        for work in (store.folder / "work").iterdir():
            beat = store.running(work.name)
            if beat and 0.15 < beat["fraction"] < 0.7 and (work / "checkpoint.pt").exists():
                found[work.name] = beat
        return found

    def wait(self, condition: Callable[[], T]) -> T:
        """Wait until ``condition`` gives something that is true, while the command, if it goes on, goes well."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := condition()):
            if self.command and self.command.poll():
                raise AssertionError(self.command.communicate()[1])
            assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS:g} s"
            time.sleep(0.05)
        return found

    def must_equal(self, undisturbed: Table, cells: int = CELLS) -> None:
        """Every cell is there, and has the bits of the undisturbed run's; some were continued from a checkpoint."""
        ours, theirs = self.cards(), undisturbed.cards()
        assert len(theirs) == cells
        assert ours.keys() == theirs.keys()
        for cell_id, card in theirs.items():
            assert card["cost"]["resumed"] == 0
            for key in SAME:
                assert ours[cell_id][key] == card[key], (cell_id, key)
        resumed = {cell_id: card["cost"]["resumed"] for cell_id, card in ours.items()}
        assert sum(resumed.values()) > 0, "nothing was hit"
        self.record(
            f"{len(ours)} of {cells} cells are finished. Compared with an undisturbed `launcher=local` run: "
            f"{', '.join(SAME)} of every card: equal, bit by bit"
        )
        for cell_id, card in ours.items():
            self.record(
                f"cell {cell_id}: continued {resumed[cell_id]} time(s), "
                f"last loss {card['curve'][-1]['loss']!r} after {card['curve'][-1]['step']} steps"
            )


class Record:
    """What was done when, as Markdown; kept where :data:`RECORDS` says."""

    def __init__(self, name: str, title: str) -> None:
        self.name, self.lines, self.begun = name, [f"# {title}", ""], time.monotonic()

    def __call__(self, text: str) -> None:
        self.lines.append(f"- {time.monotonic() - self.begun:.1f} s: {text}")
        print(self.lines[-1], flush=True)

    def keep(self) -> None:
        text = "\n".join(self.lines) + "\n"
        if folder := os.environ.get(RECORDS):
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / f"{self.name}.md").write_text(text)
