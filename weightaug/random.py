"""Random numbers as a function of (seed, step, purpose), never as a state.

Whoever knows the seed and the step number can draw the same numbers again, so resuming a run needs no
generator state and a test can put the authors' own draws in place of ours by overriding a method.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed that depends on every part of ``key`` and is the same on every machine."""
    text = "/".join(str(part) for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


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
