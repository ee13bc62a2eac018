"""The disk space that cells take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.data.dataset import Source
from benchmarks.planning.kinds import published_images
from benchmarks.planning.memory import Memory

CHECKPOINTS = 2
"""The last two of a running cell are kept."""


@dataclass(frozen=True)
class DiskSpace:
    """Bytes. Cards, some kilobytes each, and the data sets as they are published are not in here."""

    weights: float  # that stay beside the cards
    checkpoints: float  # while the cells run that the most is kept of
    decoded: float  # images as they are kept after decoding


def disk_of(cells: Iterable[tuple[Memory, Source, list[str]]], workers: int, keep_weights: bool) -> DiskSpace:
    """
    Args:
        cells: those still to be trained: memory, data set and sets of shifted test images of each.
        workers: how many run at once.
        keep_weights: whether trained weights are kept.
    """
    weights, running, decoded = 0.0, [], {}
    for memory, source, shifted in cells:
        weights += memory.weights * keep_weights
        running.append(CHECKPOINTS * (memory.weights + memory.optimizer))
        decoded[type(source).__name__, str(vars(source).get("stored_side"))] = source.decoded_bytes()
        for name in shifted:
            pixels = source.in_channels * source.image_size**2
            decoded[name, ""] = published_images(name) * pixels
    return DiskSpace(weights, sum(sorted(running)[-workers:]), sum(decoded.values()))
