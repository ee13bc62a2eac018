"""What DOM costs when it is made real: savings counted and timed by network, and a search on a trained one."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from benchmarks.config import load
from benchmarks.cost.counting import count
from benchmarks.cost.dom_savings import (
    Distance,
    DomCost,
    distance,
    dom_cost,
    mean_saving_moved,
    possible_shifts,
    sampled_saving,
    saving_by_distance,
)
from benchmarks.cost.draw_search import Draws
from benchmarks.cost.latency import TimeRatio, Timings, measure
from benchmarks.cost.trade_off import with_shadows
from benchmarks.errors import UserError
from weightaug import WAS, materialise
from weightaug.kernel_draws import LayerDraw
from weightaug.kernel_transforms import RandomShift

INPUT = (3, 32, 32)
CLASSES = 100
"""The networks are counted and timed for CIFAR-100."""
SAMPLES = 1000
PLAIN, ZERO_FILLED, MATERIALISED = "plain", "zero-filled", "materialised"
NETWORKS = (
    "model=vgg16_was method.transform=shift",
    "model=vgg16_was model.hidden=4096 method.transform=crop",
    "model=resnet18_was",
    "model=resnet34_was",
    "model=googlenet_was method.scale_min=0.6 method.scale_max=0.8",
    "model=mobilenetv2_was",
    "model=efficientnet_lite0_was",
)
"""The WAS authors' networks with the transforms that they train them with."""

Note = Callable[[str], None]


@dataclass(frozen=True)
class Latency:
    """Seconds of one forward pass of a batch, by the kind of network and how far its kernels are shifted."""

    device: str
    batch: int
    timings: dict[tuple[str, Distance], Timings] = field(repr=False)

    def relative(self, kind: str, to: str, far: Distance) -> TimeRatio:
        """How many times the seconds of the network of kind ``to`` the one of ``kind`` takes."""
        return self._of(kind, far).relative_to(self._of(to, far))

    def _of(self, kind: str, far: Distance) -> Timings:
        return self.timings[kind, (0, 0) if kind == PLAIN else far]


@dataclass(frozen=True)
class NetworkSavings:
    """What is known of one network."""

    label: str
    """The overrides it was built from."""
    cost: DomCost
    by_distance: dict[Distance, float]
    """Share of the FLOPs saved where every shadow layer draws a shift so far."""
    mean_moved: float
    """The mean of that over all shifts but the one that moves nothing."""
    expected_shift: float
    """Mean saving over draws where T1 is always drawn."""
    expected: float
    """Mean saving over draws of the network's own transform."""
    sampled: tuple[float, float]
    """The same from draws, with its standard error."""
    fvcore_macs: dict[Distance, tuple[int, int]]
    """Multiply-adds of the materialised network: computed, and counted by fvcore."""
    latencies: tuple[Latency, ...]

    @property
    def of_convolutions(self) -> float:
        """The factor from a share of all FLOPs to one of the convolutions'."""
        return self.cost.macs / self.cost.convolution_macs


def network_savings(
    text: str,
    batches: Sequence[int],
    rounds: int,
    devices: Sequence[str],
    note: Note,
    least_seconds: float = 4.0,
) -> NetworkSavings:
    """Count and time the network that the overrides ``text`` describe.

    Args:
        text: such as ``model=resnet18_was method.transform=shift``.
        batches: sizes of the batches to time.
        rounds: how often each network is timed; 0 leaves the timing out.
        devices: torch's names of those to time on.
        note: told what is going on.
        least_seconds: a batch size is timed for at least so long, in more rounds where they are short.
    """
    note(f"counting {text}")
    method, translate = described(text)
    cost = dom_cost(method, INPUT)
    everywhere: dict[Distance, Draws] = {
        distance(shift): dict.fromkeys(method.layers, shift) for shift in possible_shifts(cost, translate)
    }
    moved = {far: everywhere[far] for far in sorted(everywhere) if far != (0, 0)}
    counted = {
        far: (cost.macs_with(draws), count(materialise(method, draws), INPUT).macs)
        for far, draws in sorted(everywhere.items())
    }
    latencies = []
    for device in devices if rounds else ():
        networks = _networks(method, moved, device)
        for batch in batches:
            note(f"timing {text}: batch {batch} on {device}")
            x = torch.randn(batch, *INPUT, generator=torch.Generator().manual_seed(0)).to(device)
            latencies.append(Latency(device, batch, measure(networks, x, rounds, least_seconds)))
    return NetworkSavings(
        label=text,
        cost=cost,
        by_distance=saving_by_distance(cost, translate),
        mean_moved=mean_saving_moved(cost, translate),
        expected_shift=cost.expected_saving(RandomShift(translate)),
        expected=cost.expected_saving(method.transform),
        sampled=sampled_saving(cost, method, SAMPLES),
        fvcore_macs=counted,
        latencies=tuple(latencies),
    )


def described(text: str) -> tuple[WAS, float]:
    """WAS with the network that the overrides describe, untrained, and T1's furthest shift.

    Raises:
        UserError: the text can't be read, there is no such network, or it has no shadow layers.
    """
    try:
        overrides = shlex.split(text)
    except ValueError as error:
        raise UserError(f"can't read the network {text!r}: {error}") from error
    cell = load(["method=was", *overrides])[0]
    torch.manual_seed(0)
    model = cell.model.build(num_classes=CLASSES, in_channels=INPUT[0], image_size=INPUT[1])
    method = with_shadows(cell.method.build(model=model, seed=0))
    return method, float(cell.method.arguments["translate"])


def _networks(
    method: WAS, moved: dict[Distance, Draws], device: str
) -> dict[tuple[str, Distance], nn.Module]:
    """The networks to time against each other."""
    networks: dict[tuple[str, Distance], nn.Module] = {(PLAIN, (0, 0)): method.model}
    for far, draws in moved.items():
        networks[ZERO_FILLED, far] = zero_filled(method, draws)
        networks[MATERIALISED, far] = materialise(method, draws)
    return {key: copy.deepcopy(network).eval().to(device) for key, network in networks.items()}


def zero_filled(method: WAS, draws: Mapping[str, LayerDraw]) -> nn.Module:
    """A copy of the network with the shadow weights of ``draws`` as the authors run them: dense, zeros included."""
    network = copy.deepcopy(method.model)
    with torch.no_grad():
        network.load_state_dict(method.shadow(draws), strict=False)
    return network
