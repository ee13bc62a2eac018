"""Random numbers as a function of (seed, step, purpose), never as a state.

Whoever knows the seed and the step number can draw the same numbers again, so resuming a run needs no
generator state and a test can put the authors' own draws in place of ours by overriding a method.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed that depends on every part of ``key`` and is the same on every machine."""
    text = "/".join(str(part) for part in key)
    content = text.encode(errors="surrogateescape")  # a file's name may be no UTF-8
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1


class RandomSource:
    """The explicit source of all of a method's randomness.

    Args:
        seed: the method's seed. Seeds of initialisation, data order and augmentation are separate.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def generator(self, device: torch.device | str, *key: int | str) -> torch.Generator:
        """A fresh generator on ``device`` for the purpose ``key``, e.g. ``(step, "noise", copy)``."""
        generator = torch.Generator(device=device)
        generator.manual_seed(derive_seed(self.seed, *key))
        return generator

    def normal(self, like: Mapping[str, Tensor], step: int, copies: Sequence[int]) -> dict[str, Tensor]:
        """Independent standard normal numbers for every element of every weight copy.

        Args:
            like: the tensors, by name, to draw numbers for.
            step: number of the training step.
            copies: numbers of the weight copies; a copy's numbers do not depend on which others are drawn.

        Returns:
            For every name a float32 tensor [len(copies), *shape].
        """
        return self._draw(Tensor.normal_, like, step, copies)

    def uniform(self, like: Mapping[str, Tensor], step: int, copies: Sequence[int]) -> dict[str, Tensor]:
        """As :meth:`normal`, uniform on [0, 1)."""
        return self._draw(Tensor.uniform_, like, step, copies)

    def _draw(
        self, fill: Callable[..., Tensor], like: Mapping[str, Tensor], step: int, copies: Sequence[int]
    ) -> dict[str, Tensor]:
        # One draw per copy for all parameters at once: sixty small kernels would cost more than the numbers.
        device = next(iter(like.values())).device
        numbers = [tensor.numel() for tensor in like.values()]
        flat = torch.empty(len(copies), sum(numbers), device=device)
        for row, copy in zip(flat, copies, strict=True):
            fill(row, generator=self.generator(device, step, "noise", copy))
        parts = zip(like.items(), flat.split(numbers, dim=1), strict=True)
        return {name: part.view(len(copies), *tensor.shape) for (name, tensor), part in parts}
