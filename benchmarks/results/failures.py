"""Failed tries of cells: each with its error and place, and whether the cell was given up. A file beside each lease."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from benchmarks.results.disk import Disk


class Failures:
    """What is known of the failures of a store's cells.

    Args:
        work: the folder with a folder for each cell that was begun.
        retries: a cell that has failed is tried so often again before it is given up.
    """

    def __init__(self, disk: Disk, work: Path, retries: int) -> None:
        self.disk, self.work, self.retries = disk, work, retries

    def path(self, cell_id: str) -> Path:
        return self.work / cell_id / "failure.json"

    def add(self, cell_id: str, error: str, details: str = "", final: bool = False) -> None:
        """Note that a try of a cell has failed.

        Args:
            final: trying again is of no use.
        """
        before = self.of(cell_id)
        attempt = {
            "error": error,
            "details": details,
            "time": time.time(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        tries = before.get("tries", 0) + 1
        known = {
            **attempt,
            "tries": tries,
            "given_up": final or tries > self.retries,
            "attempts": [*before.get("attempts", []), attempt],
        }
        self._write(cell_id, known)

    def of(self, cell_id: str) -> dict[str, Any]:
        """Why the last try failed, with all ``attempts`` and whether the cell is ``given_up``; empty if none did."""
        return self.disk.facts(self.path(cell_id), ("error",))

    def given_up(self, cell_id: str) -> str | None:
        """The error for which the cell is not tried any more; None where it is."""
        failure = self.of(cell_id)
        return str(failure["error"]) if failure.get("given_up") else None

    def forgive(self, cell_ids: set[str]) -> None:
        """Try those of the cells again that were given up; what is known of their failures stays."""
        for cell_id in cell_ids & set(self.disk.names(self.work)):
            if failure := self.of(cell_id):
                self._write(cell_id, {**failure, "tries": 0, "given_up": False})

    def _write(self, cell_id: str, known: dict[str, Any]) -> None:
        path = self.path(cell_id)
        self.disk.make_folder(path.parent)
        self.disk.write(path, json.dumps(known, indent=1, sort_keys=True) + "\n")
