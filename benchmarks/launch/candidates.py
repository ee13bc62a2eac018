"""Which cell a worker should try to claim next, at a cost that does not grow with the store.

A worker goes around the table's cells in their order from a place of its own, so that workers seldom meet and cells on
the same data follow each other. It remembers what is finished. When it has met nothing but other people's cells for a
while, it looks at the whole folder of cards once, if that is cheaper than looking at each cell, and begins elsewhere.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from enum import Enum

from benchmarks.results.store import Store

LOOKS = 8
"""So many fruitless looks in a row, then a pause."""
NAMES_A_LOOK = 100
"""A listing costs about one operation of the file server for so many names."""
FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.5, 15.0, 1.3  # seconds


class Came(Enum):
    """What came of trying a cell."""

    SETTLED = "finished or given up"
    FAILED = "failed, to be tried again"
    BUSY = "somebody else has it"


class Candidates:
    """The cells that a worker does not know to be settled. False when there are none.

    Args:
        cell_ids: of the table, in its order.
        chance: where the worker begins.
    """

    def __init__(self, cell_ids: Sequence[str], store: Store, chance: random.Random | None = None) -> None:
        self._store, self._chance = store, chance or random.Random()
        self._left = deque(cell_ids)
        self._fruitless, self._pauses, self._cards = 0, 0, 0
        self._look_at_all()

    def __bool__(self) -> bool:
        return bool(self._left)

    def next(self) -> str | None:
        """A cell to try; None when it is time for a :meth:`pause`. What comes of it must be told (:meth:`tell`)."""
        while self._left:
            if self._fruitless >= min(LOOKS, len(self._left)):
                self._fruitless = 0
                if not (self._listing_pays() and self._look_at_all()):
                    return None
                continue
            cell_id = self._left.popleft()
            self._fruitless += 1
            if not self._store.settled(cell_id):
                return cell_id
        return None

    def tell(self, cell_id: str, came: Came) -> None:
        """What came of trying the cell."""
        if came is not Came.SETTLED:
            self._left.append(cell_id)
        if came is not Came.BUSY:
            self._fruitless = self._pauses = 0

    def pause(self) -> float:
        """Seconds to wait until the next look: longer from time to time, and not the same for all."""
        self._pauses += 1
        usual = min(LONGEST_PAUSE, FIRST_PAUSE * GROWTH ** (self._pauses - 1))
        return usual * (0.5 + self._chance.random())

    def _listing_pays(self) -> bool:
        """Whether many are left, and listings cost no more than the looks between them: a pause's worth each."""
        looks = self._cards / NAMES_A_LOOK
        return len(self._left) > LOOKS and self._pauses % (1 + int(looks / (3 * LOOKS))) == 0

    def _look_at_all(self) -> bool:
        """Forget what is finished, and begin elsewhere; whether there was something."""
        finished = self._store.finished()
        before, self._cards = len(self._left), len(finished)
        self._left = deque(cell_id for cell_id in self._left if cell_id not in finished)
        if self._left:
            self._left.rotate(self._chance.randrange(len(self._left)))
        return len(self._left) < before
