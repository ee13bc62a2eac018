"""How many cells at once on one device give the most of them in an hour: found by doubling until it is not worth it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

ROUNDS = 3
"""How often two packings alternate; their ratio is the median."""
WORTH = 1.03
"""A packing must give this many times the cells of the one before; less is within the noise, and takes memory."""


class NoMoreError(Exception):
    """Why so many cells at once can't be measured: they do not fit on the device, say."""


@dataclass(frozen=True)
class Level:
    """So many cells at once, measured."""

    workers: int
    gain: float  # cells an hour over those of one at a time
    rate: float  # steps a second of all together, the median


@dataclass(frozen=True)
class Packing:
    """What was measured, and why it stopped."""

    levels: tuple[Level, ...]  # of 1, 2, 4, ... workers
    stopped: str

    @property
    def best(self) -> Level:
        """The fewest workers of those worth it."""
        best = self.levels[0]
        for level in self.levels[1:]:
            best = level if level.gain >= WORTH * best.gain else best
        return best

    def gain(self, workers: int) -> float:
        """That of ``workers``, or of the most that were measured below."""
        return max((level for level in self.levels if level.workers <= workers), key=lambda x: x.workers).gain


def find_packing(counts: Iterable[int], rate: Callable[[int], float]) -> Packing:
    """Alternate each of the rising ``counts`` with the best so far; stop where it is not worth it or there is no room.

    Args:
        counts: begins with 1.
        rate: measures steps a second of so many workers together; raises :class:`NoMoreError`.
    """
    first, *others = counts
    best = Level(first, 1.0, 0.0)
    levels: list[Level] = []
    stopped = "the most that makes sense here was tried"
    for workers in others:
        try:
            pairs = [(rate(best.workers), rate(workers)) for _ in range(ROUNDS)]
        except NoMoreError as error:
            stopped = f"{workers} at once: {error}"
            break
        if not levels:
            levels.append(Level(first, 1.0, median(one for one, _ in pairs)))
        gain = best.gain * median(more / one for one, more in pairs)
        level = Level(workers, gain, median(more for _, more in pairs))
        levels.append(level)
        if level.gain < WORTH * best.gain:
            times = level.gain / best.gain
            stopped = f"{workers} at once are not worth it: {times:.2f} times the cells of {best.workers}"
            break
        best = level
    if not levels:
        levels.append(Level(first, 1.0, median(rate(first) for _ in range(ROUNDS))))
    return Packing(tuple(levels), stopped)
