"""A card store in a process that neither reads nor writes it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.results.store import Store


class Unseen(Store):
    """Where the files of a store are; nothing is made, and the folder need not even be there on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cards = folder, folder / "cards"
