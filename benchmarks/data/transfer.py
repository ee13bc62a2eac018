"""From the machine's memory to the device, while the device computes and without the program waiting for it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

AHEAD = 2
"""Training steps that may be waiting on a GPU when the next batch is asked for: enough to keep it busy, and few enough
that the batches which wait with them do not fill its memory."""


class Feed:
    """Batches for a device, made of pieces that come from elsewhere.

    To a GPU they are copied on a stream of their own, beside the kernels of the steps before.

    Args:
        pieces: uint8 [n, C, H, W] in order; in page-locked memory for a GPU.

    Attributes:
        waited: for how many seconds the device had nothing to do as its images had not come: on a GPU from the end of
            one step's kernels to the arrival of the next batch, by the GPU's clock; elsewhere the time that reading
            takes in this thread.
    """

    def __init__(self, pieces: Iterator[Tensor], device: torch.device) -> None:
        self.pieces, self.device = pieces, device
        self.waited = 0.0
        self._gaps: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def batch(self, count: int) -> Tensor:
        """The next ``count`` images, on the device."""
        if self._copies is None:
            begun = time.perf_counter()
            pieces = self._next(count)
            images = (torch.cat(pieces) if len(pieces) > 1 else pieces[0]).to(self.device)
            self.waited += time.perf_counter() - begun
            return images
        steps = torch.cuda.current_stream(self.device)
        asked, came = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        asked.record(steps)
        self._settle(AHEAD)
        pieces = self._next(count)
        with torch.cuda.stream(self._copies):
            images = torch.empty((count, *pieces[0].shape[1:]), dtype=torch.uint8, device=self.device)
            for piece, there in zip(pieces, images.split([len(piece) for piece in pieces]), strict=True):
                there.copy_(piece, non_blocking=True)
        steps.wait_stream(self._copies)
        images.record_stream(
            steps
        )  # else the memory could be given to another copy before the step has read it
        came.record(steps)
        self._gaps.append((asked, came))
        return images

    def end(self) -> None:
        """Wait until the device has all batches, so that ``waited`` is complete."""
        self._settle(0)

    def _next(self, count: int) -> list[Tensor]:
        pieces: list[Tensor] = []
        while count > 0:
            pieces.append(next(self.pieces))
            count -= len(pieces[-1])
        return pieces

    def _settle(self, open_gaps: int) -> None:
        """Count the gaps but for the last few, waiting for the steps that they are before."""
        while len(self._gaps) > open_gaps:
            asked, came = self._gaps.popleft()
            came.synchronize()
            self.waited += asked.elapsed_time(came) / 1000
