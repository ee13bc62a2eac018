"""All that a kind of cells asks of a device, counted: FLOPs and memory."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.planning.kinds import Kind
from benchmarks.planning.memory import Memory, compute
from benchmarks.planning.network import network_of

BACKWARD = 2
"""A backward pass costs twice the FLOPs of a forward one, but for what no gradient is needed of."""


@dataclass(frozen=True)
class Need:
    """Of one kind."""

    step_flops: float
    image_flops: float  # of one image forwards
    memory: Memory  # without the images that are held on the device


_counted: dict[str, Need] = {}


def need_of(kind: Kind) -> Need:
    """Counted once for each kind; nothing is measured."""
    from benchmarks.planning.demand import demand_of  # with all that trains

    key = kind.key
    if key not in _counted:
        network, demand = network_of(kind), demand_of(kind)
        recipe = kind.cell.recipe
        flops = (1 + BACKWARD) * network.flops * demand.passes * recipe.batch_size
        memory = compute(recipe, kind.shape, network, demand)
        _counted[key] = Need(flops, network.flops, memory)
    return _counted[key]
