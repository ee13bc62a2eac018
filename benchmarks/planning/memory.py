"""The device memory that training a cell takes, computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.cell import Recipe
from benchmarks.data.dataset import Source

if TYPE_CHECKING:
    from benchmarks.planning.demand import Demand
    from benchmarks.planning.network import Network

FLOAT = 4
"""Bytes of a float32, in which weights, gradients and the optimizer's state are kept whatever the precision."""
OPTIMIZER_STATES = {"sgd": 1, "adamw": 2}
PARTS = (1, 2, 4, 8, 16, 32, 64, 128)
"""In so many parts a batch may be split, among devices or one after another."""


@dataclass(frozen=True)
class Memory:
    """Bytes, with P parameters, B images in a batch, ``w`` and ``a`` the method's factors, A activations of an image::

        weights   = 4 P + buffers
        optimizer = 4 P s                  s = 1 for SGD with momentum, 2 for AdamW
        gradients = 4 P
        copies    = 4 P (w - 1)            weight copies, their gradients, noise; for bf16 2 P more
        batch     = B (a A + 4 C H W)      activations and the images themselves
        images    = C H W (training + test images) where they are held on the device

    P, A and the buffers are counted on the meta device (:mod:`benchmarks.planning.network`), w and a while the
    method runs on a small network (:mod:`benchmarks.planning.demand`). What is not counted: the process and a GPU's
    context, the rounding of torch's allocator, work space of convolutions, what a compiler saves.
    """

    weights: float
    optimizer: float
    gradients: float
    copies: float
    batch: float
    images: float = 0.0

    @property
    def total(self) -> float:
        return self.in_parts(1)

    def in_parts(self, parts: int) -> float:
        """With the sub-batches and their copies in so many parts: by device, or one after another."""
        whole = self.weights + self.optimizer + self.gradients + self.images
        return whole + (self.copies + self.batch) / parts

    def parts_that_fit(self, room: float, most: int) -> int | None:
        """The fewest parts, at most ``most``, with which it fits into ``room`` bytes; None if none do."""
        return next((n for n in PARTS if n <= most and self.in_parts(n) <= room), None)


def compute(recipe: Recipe, shape: tuple[int, int, int], network: Network, demand: Demand) -> Memory:
    """The memory of a kind, without images that are held on the device."""
    states = 0 if recipe.optimizer == "sgd" and not recipe.momentum else OPTIMIZER_STATES[recipe.optimizer]
    weights = FLOAT * network.parameters
    cast = weights / 2 if recipe.precision == "bf16" else 0  # autocast's copies of the weights
    pixels = shape[0] * shape[1] * shape[2]
    return Memory(
        weights=weights + network.buffer_bytes,
        optimizer=weights * states,
        gradients=weights,
        copies=weights * (demand.weights - 1) + cast,
        batch=recipe.batch_size * (demand.activations * network.activation_bytes + FLOAT * pixels),
    )


def held(source: Source) -> int:
    """Bytes of the training and test images of a set that lies in memory."""
    if source.counts is None or not source.in_memory:
        return 0
    return sum(source.counts) * source.in_channels * source.image_size**2


def shown(size: float) -> str:
    """Bytes in the unit that fits."""
    for unit, bytes_of in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= bytes_of:
            return f"{size / bytes_of:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"
