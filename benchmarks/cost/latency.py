"""Seconds of a forward pass of several networks, measured side by side on one machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Timings:
    """What was measured of one network: seconds of a pass in every round."""

    seconds: tuple[float, ...]

    def relative_to(self, other: Timings) -> TimeRatio:
        """How many times the other network's seconds this one takes."""
        ratios = [mine / theirs for mine, theirs in zip(self.seconds, other.seconds, strict=True)]
        low, _, high = (
            statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        )
        return TimeRatio(min(self.seconds) / min(other.seconds), low, high)


@dataclass(frozen=True)
class TimeRatio:
    """Of the seconds of two networks."""

    fastest: float
    """Of their fastest passes, which other work on the machine disturbs least."""
    low: float
    """Lower quartile of the ratios round by round."""
    high: float
    """Upper quartile of them."""


Name = TypeVar("Name")


def measure(
    networks: Mapping[Name, nn.Module], x: Tensor, rounds: int, least_seconds: float = 0.0
) -> dict[Name, Timings]:
    """Time ``network(x)`` in inference mode for every network, all of them once in each round.

    Args:
        networks: by name, on the device of ``x``.
        x: inputs [N, C, H, W].
        rounds: how often, after one round that does not count.
        least_seconds: more rounds, until this time has passed.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for network in networks.values():
            network.eval()
            _pass(network, x)
        begun = time.perf_counter()
        while len(next(iter(seconds.values()))) < rounds or time.perf_counter() - begun < least_seconds:
            for name, network in networks.items():
                seconds[name].append(_pass(network, x))
    return {name: Timings(tuple(values)) for name, values in seconds.items()}


def _pass(network: nn.Module, x: Tensor) -> float:
    """Seconds of one pass, the device's work included."""
    _wait(x)
    started = time.perf_counter()
    network(x)
    _wait(x)
    return time.perf_counter() - started


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
