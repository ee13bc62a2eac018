"""Loader processes: they cut images out of a cache, piece by piece, and stay alive from one reading to the next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from benchmarks.data.image_cache import ImageCache

PIECE = 128
"""Images that a process makes at once. A batch is made of pieces, so that all processes work on it from the start."""
AHEAD = 2
"""Batches that are made in advance, or so many pieces for each process."""

_kept: Loaders | None = None
"""Those of the reading that ended last; no others idle."""


@dataclass(frozen=True)
class _Key:
    cache: int  # its id; the cache itself is in the loaders
    size: int
    processes: int
    ahead: int  # pieces, for each process
    pinned: bool


class Loaders:
    """Processes for one cache; see :meth:`taken`."""

    def __init__(self, cache: ImageCache, key: _Key) -> None:
        self.key, self._plan = key, _Plan()
        self._loader = DataLoader(
            _Cut(cache, key.size),
            batch_size=None,
            sampler=self._plan,
            num_workers=key.processes,
            prefetch_factor=key.ahead if key.processes else None,
            persistent_workers=key.processes > 0,
            pin_memory=key.pinned,
        )

    @classmethod
    def taken(
        cls, cache: ImageCache, size: int, processes: int, batch_size: int, pinned: bool = False
    ) -> Loaders:
        """The loaders of the last reading if they fit, else new ones. Those that do not fit end.

        Whoever has taken them gives them back by :meth:`keep`, or they end with the last reference.

        Args:
            cache: the images.
            size: side of the images that are made.
            processes: 0: this one.
            batch_size: of the reading; how far ahead is read depends on it.
            pinned: whether images come in page-locked memory.
        """
        global _kept
        pieces = AHEAD * -(-batch_size // PIECE)
        ahead = max(AHEAD, -(-pieces // max(1, processes)))
        key = _Key(id(cache), size, processes, ahead, pinned)
        kept, _kept = _kept, None
        return kept if kept is not None and kept.key == key else cls(cache, key)

    def keep(self) -> None:
        """For the next reading."""
        global _kept
        _kept = self

    def pieces(self, places: Tensor, boxes: Tensor, batch_size: int) -> Iterator[Tensor]:
        """The images at ``places`` int64 [n], of which ``boxes`` int64 [n, 4] are cut out: uint8 [p, 3, size, size].

        No piece lies in two batches.
        """
        self._plan.table = torch.cat([places.unsqueeze(1), boxes], 1).numpy()
        self._plan.batch_size = batch_size
        return iter(self._loader)


class _Plan(Sampler[np.ndarray]):
    """Which images the pieces of a reading hold and what is cut out of each."""

    def __init__(self) -> None:
        self.table = np.empty((0, 5), np.int64)
        self.batch_size = 1

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self.table), self.batch_size):
            batch = self.table[start : start + self.batch_size]
            for begin in range(0, len(batch), PIECE):
                yield batch[begin : begin + PIECE]


class _Cut(Dataset[Tensor]):
    """The cut and resized images for a piece of the plan."""

    def __init__(self, cache: ImageCache, size: int) -> None:
        self.cache, self.size = cache, size

    def __getitem__(self, piece: np.ndarray) -> Tensor:
        """uint8 [p, 3, size, size]; in a loader process straight in the memory that it shares with its parent."""
        return default_collate([self._cut(*entry) for entry in piece.tolist()])

    def _cut(self, place: int, top: int, left: int, height: int, width: int) -> Tensor:
        """The box, resized as :func:`benchmarks.data.resampling.resized_crop` does."""
        image = self.cache[place][:, top : top + height, left : left + width]
        if (height, width) != (self.size, self.size):
            side = (self.size, self.size)
            image = F.interpolate(image.unsqueeze(0), side, mode="bicubic", antialias=True).squeeze(0)
        return image.contiguous()
