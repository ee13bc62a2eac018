"""What a method's step asks beyond the network itself, counted while it runs on a small one.

A method may be anybody's own, so no formula is assumed: one step is run on the CPU, and the bytes of all tensors that
live are added up as they come and go. Two batches of different size tell what grows with the images (activations) from
what does not (gradients, copies of the weights, noise).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.config import load
from benchmarks.cost.counting import measured_passes
from benchmarks.data.batches import epoch_batches
from benchmarks.planning.kinds import Kind
from benchmarks.planning.network import network_of
from benchmarks.training.trainer import Trainer

SIZE = 16
"""Pixels of the side of the small network's images."""
SMALL_NETWORKS = {
    "convolutions": ("model=resnet18_cifar", "model.width=16", 'model.blocks="1,1"'),
    "attention": ("model=vit_tiny", "model.width=32", "model.depth=2"),
}


@dataclass(frozen=True)
class Demand:
    """A method's factors."""

    passes: float  # FLOPs of its step in units of a plain forward and backward pass
    weights: (
        float  # peak bytes that do not grow with the batch, gradients included, over those of the parameters
    )
    activations: float  # peak bytes that do, over the activations of one plain pass


class LiveBytes(TorchDispatchMode):
    """Within the context, counts the bytes of the storages that were made there and still live.

    Attributes:
        peak: the most at any moment.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: weakref.WeakKeyDictionary[torch.UntypedStorage, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in before:
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        weakref.finalize(storage, self._remove, size)
        self.live += size
        self.peak = max(self.peak, self.live)

    def _remove(self, size: int) -> None:
        self.live -= size


def peak_of(step: Callable[[], object]) -> int:
    """The most bytes that tensors made by ``step`` take at once."""
    with LiveBytes() as counter:
        step()
    return counter.peak


_counted: dict[str, Demand] = {}


def demand_of(kind: Kind) -> Demand:
    """Counted once for each method and family of networks."""
    family = network_of(kind).family
    key = f"{family} {kind.method_key}"
    if key not in _counted:
        with _one_thread():  # more only wait for each other on a network this small
            _counted[key] = _count(kind, family)
    return _counted[key]


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _count(kind: Kind, family: str) -> Demand:
    base = load([*SMALL_NETWORKS[family], "dataset=synthetic", f"dataset.size={SIZE}", "recipe=one_epoch"])[0]
    small = Kind(replace(base, method=kind.cell.method), (3, SIZE, SIZE), 10, kind.corruptions)
    network = network_of(small)
    images = max(4, 2 * kind.sub_batches)
    peaks = []
    for count in (images, 2 * images):
        step, trainer = _step(small, count)
        step()  # the first one also proves the stacked pass
        trainer.model.zero_grad()
        peaks.append(peak_of(step))
    each = (peaks[1] - peaks[0]) / images
    constant = peaks[0] - each * images
    trainer.model.zero_grad()
    x, y = _batch(trainer)
    return Demand(
        passes=measured_passes(trainer.method, F.cross_entropy, x, y),
        weights=max(1.0, constant / (4 * network.parameters)),
        activations=each / network.activation_bytes,
    )


def _step(small: Kind, images: int) -> tuple[Callable[[], object], Trainer]:
    """A method's part of a step on so many images; the optimizer's state is no part of it."""
    cell = replace(small.cell, recipe=replace(small.cell.recipe, batch_size=images))
    source = small.made_up(images, 1)
    trainer = Trainer(cell, source, source.load(Path()), "cpu")
    trainer.model.train()
    x, y = _batch(trainer)
    return lambda: trainer.method.backward(F.cross_entropy, x, y), trainer


def _batch(trainer: Trainer) -> tuple[Tensor, Tensor]:
    return next(epoch_batches(trainer.data, trainer.cell.recipe, 0, 0))
