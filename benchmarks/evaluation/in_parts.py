"""Batches that may be too large for the memory, of a method and of corruptions: in parts, with the same result."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.errors import UserError
from benchmarks.memory import is_out_of_memory, release
from benchmarks.terminal import warn
from weightaug.method import Method


class InParts:
    """``method``'s :meth:`predict` and :meth:`logits`; out of memory, the parts of a batch are halved for good.

    What a method draws for a batch it draws for all parts of it, so that the numbers stay the same but for rounding.

    Args:
        method: with its model in inference mode.
        size: the largest number of images in a part, to begin with.
        divisible: whether the parts of a batch give what the batch gives, unlike with batch statistics.
    """

    def __init__(self, method: Method, size: int, divisible: bool = True) -> None:
        self.method, self.size, self.divisible = method, size, divisible

    @property
    def model(self) -> nn.Module:
        return self.method.model

    @property
    def modes(self) -> tuple[str, ...]:
        return self.method.modes

    @torch.no_grad()
    def predict(self, x: Tensor, mode: str = "plain") -> Tensor:
        return self.logits(x, mode)

    def logits(self, x: Tensor, mode: str = "plain") -> Tensor:
        """Logits [N, classes], with a graph where gradients are on.

        Raises:
            UserError: one image is too much, or batches can't be divided.
        """
        before = self.method.state_dict()
        while True:
            try:
                return self._logits(x, mode, before)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            release()
            self.method.load_state_dict(before)
            self._halve(len(x))

    def _logits(self, x: Tensor, mode: str, before: dict[str, object]) -> Tensor:
        if len(x) <= self.size:
            return self.method.logits(x, mode)

        def part(x: Tensor) -> Tensor:
            self.method.load_state_dict(before)
            return self.method.logits(x, mode)

        # For attacks the graph of all parts would take as much memory as that of the batch: each is made again.
        graph = torch.is_grad_enabled()
        return torch.cat(
            [checkpoint(part, x, use_reentrant=False) if graph else part(x) for x in x.split(self.size)]
        )

    def _halve(self, count: int) -> None:
        size = min(self.size, count)
        if not self.divisible:
            raise UserError(
                f"out of memory in the evaluation of {size} images at once, and with evaluation.batch_norm=batch they "
                "can't be divided; lower evaluation.batch_size (another cell), or use device=cpu"
            )
        if size == 1:
            raise UserError("out of memory in the evaluation of a single image; use device=cpu")
        self.size = size // 2
        warn(f"out of memory in the evaluation: it goes on with {self.size} images at once")


class CorruptedInParts:
    """Makes corrupted images of a batch in parts, which are halved for good when the memory does not suffice.

    The images are the same: the corruption of one does not depend on the others.
    """

    def __init__(self) -> None:
        self.size = sys.maxsize

    def __call__(self, make: Callable[[Tensor, Tensor], Tensor], images: Tensor, places: Tensor) -> Tensor:
        """``make`` of ``images`` uint8 [n, C, H, W] at the ``places`` int64 [n] of the test set.

        Raises:
            UserError: one image is too much.
        """
        while True:
            parts = zip(images.split(self.size), places.split(self.size), strict=True)
            try:
                made = [make(*part) for part in parts]
                return made[0] if len(made) == 1 else torch.cat(made)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            made = []
            release()
            size = min(self.size, len(images))
            if size == 1:
                raise UserError("out of memory in making the corruption of a single image; use device=cpu")
            self.size = size // 2
            warn(f"out of memory in making corrupted images: {self.size} are made at once from here on")
