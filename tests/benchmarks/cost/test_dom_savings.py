"""What DOM can save: the known table, fvcore's counts of the materialised networks, expectations against draws."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks.config import load
from benchmarks.cost.counting import count
from benchmarks.cost.dom import NETWORKS, network_savings
from benchmarks.cost.dom_savings import (
    DomCost,
    dom_cost,
    mean_saving_moved,
    outcomes,
    possible_shifts,
    sampled_saving,
    saving_by_distance,
)
from benchmarks.errors import UserError
from weightaug import WAS, materialise
from weightaug.kernel_draws import Crop, Flip, Shift
from weightaug.kernel_transforms import (
    Mixture,
    RandomAffine,
    RandomCrop,
    RandomFlip,
    RandomShift,
    build_transform,
)

T1 = RandomShift(0.3)


@cache
def untrained(text: str) -> tuple[WAS, DomCost]:
    """Shapes alone, without weights."""
    cell = load(["method=was", *text.split()])[0]
    with torch.device("meta"):
        model = cell.model.build(num_classes=100, in_channels=3, image_size=32)
    method = cell.method.build(model=model, seed=0)
    return method, dom_cost(method, (3, 32, 32))


# Measured on the authors' code, in %: one axis, both axes, mean of the 8 shifts that move, expected with T1 alone.
POSSIBLE = {
    "model=vgg16_was model.hidden=4096": (25.5, 42.6, 34.1, 21.0),
    "model=vgg16_was": (27.1, 45.1, 36.1, 22.3),
    "model=resnet18_was": (30.1, 50.2, 40.2, 24.8),
    "model=resnet34_was": (31.7, 52.9, 42.3, 26.1),
    "model=googlenet_was": (20.9, 35.2, None, 18.2),
    "model=mobilenetv2_was": (1.6, 2.6, 2.1, 1.3),
    "model=efficientnet_lite0_was": (2.2, 3.85, None, 2.3),
}


@pytest.mark.parametrize("text", POSSIBLE)
def test_possible_and_expected_savings(text: str) -> None:
    one, both, mean, expected = POSSIBLE[text]
    _, cost = untrained(text)
    savings = saving_by_distance(cost, 0.3)
    assert list(savings) == [(0, 0), (1, 0), (1, 1)]
    assert savings[0, 0] == 0
    assert 100 * savings[1, 0] == pytest.approx(one, abs=0.051)
    assert 100 * savings[1, 1] == pytest.approx(both, abs=0.051)
    assert mean is None or 100 * mean_saving_moved(cost, 0.3) == pytest.approx(mean, abs=0.051)
    assert 100 * cost.expected_saving(T1) == pytest.approx(expected, abs=0.051)
    # T2 saves nothing, so an even mixture saves half as much
    crops = RandomCrop(0.8, 1.0)
    assert cost.expected_saving(crops) == 0
    assert cost.expected_saving(Mixture((T1, crops))) == pytest.approx(cost.expected_saving(T1) / 2)


def test_savings_of_the_convolutions_alone() -> None:
    _, cost = untrained("model=vgg16_was")
    factor = 100 * cost.macs / cost.convolution_macs
    savings = saving_by_distance(cost, 0.3)
    assert [factor * s for s in savings.values()] == pytest.approx([0, 27.1, 45.2], abs=0.05)
    assert factor * mean_saving_moved(cost, 0.3) == pytest.approx(36.16, abs=0.005)
    assert factor * cost.expected_saving(T1) == pytest.approx(22.3, abs=0.05)


def test_default_networks_are_the_authors() -> None:
    assert {text.split()[0] for text in NETWORKS} == {text.split()[0] for text in POSSIBLE}
    for text in NETWORKS:
        method, cost = untrained(text)
        assert cost.layers.keys() == method.layers.keys()
        own = cost.expected_saving(method.transform)
        draws_shifts = "crop" not in text
        assert (own > 0) == draws_shifts


shift = st.builds(Shift, st.integers(-2, 2), st.integers(-2, 2))


@settings(max_examples=15, deadline=None)
@given(st.data(), st.integers(1, 3), st.sampled_from([1, 2]), st.sampled_from([1, 3]))
def test_fvcore_counts_what_is_computed(data: st.DataObject, stride: int, dilation: int, groups: int) -> None:
    sizes = data.draw(st.lists(st.tuples(st.integers(2, 5), st.integers(1, 5)), min_size=1, max_size=3))
    layers = [nn.Conv2d(3, 6, 3, padding=1)]
    layers += [
        nn.Conv2d(6, 6, size, stride, padding=4, dilation=dilation, groups=groups, bias=False)
        for size in sizes
    ]
    method = WAS(nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(2)), layers=".*", transform="shift")
    method.model(torch.zeros(1, 3, 16, 16))
    cost = dom_cost(method, (3, 16, 16))
    assert cost.macs == count(method.model, (3, 16, 16)).macs
    draws = {name: data.draw(shift) for name in method.layers}
    counted = count(materialise(method, draws), (3, 16, 16))
    assert counted.macs == cost.macs_with(draws)
    assert counted.agree(0)


def test_layers_that_keep_their_size_save_nothing() -> None:
    class Own(nn.Conv2d):
        pass

    model = nn.Sequential(nn.Conv2d(1, 2, 3), Own(2, 2, 3), nn.Conv2d(2, 2, 3))
    model.append(nn.Conv2d(2, 2, 3))
    model[3].weight = model[2].weight  # one draw for both
    method = WAS(model)
    cost = dom_cost(method, (1, 9, 9))
    assert [layer.shrinks for layer in cost.layers.values()] == [False, True]
    assert cost.layers["2"].macs == 9 * 4 * (3 * 3 + 1)
    draws = dict.fromkeys(method.layers, Shift(1, 1))
    assert cost.macs_with(draws) == cost.macs - 5 * 4 * (3 * 3 + 1)
    assert count(materialise(method, draws), (1, 9, 9)).macs == cost.macs_with(draws)


def test_counting_leaves_no_trace() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3))
    model[1].eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    dom_cost(WAS(model), (1, 9, 9))
    assert [module.training for module in model] == [True, False, True]
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("text", ["model=resnet_tiny_was", "model=resnet_tiny_was method.transform=shift"])
def test_expectation_against_draws(text: str) -> None:
    method, cost = untrained(text)
    mean, error = sampled_saving(cost, method, 600)
    assert abs(mean - cost.expected_saving(method.transform)) < 4 * error
    assert 0 < error < 0.01


def test_further_shifts() -> None:
    _, cost = untrained("model=resnet_tiny_was")
    shares = saving_by_distance(cost, 0.6)
    assert list(shares) == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    layers = sum(layer.macs for layer in cost.layers.values()) / cost.macs
    assert shares[2, 2] == pytest.approx(layers * 8 / 9)
    assert len(possible_shifts(cost, 0.6)) == 25
    # a 5x5 kernel goes further than a 3x3 one: only what both can draw
    _, mixed = untrained("model=efficientnet_lite0_was")
    assert set(saving_by_distance(mixed, 0.5)) == {(0, 0), (1, 0), (1, 1)}
    assert mean_saving_moved(mixed, 0.0) == 0


def test_outcomes() -> None:
    mixed = outcomes(build_transform("shift_or_crop"), (3, 3))
    assert sum(mixed.values()) == pytest.approx(1)
    assert mixed[Shift(0, 0)] == pytest.approx(25 / 81 / 2)
    assert mixed[Crop(0, 0, 3, 3)] == pytest.approx(RandomCrop().outcomes((3, 3))[Crop(0, 0, 3, 3)] / 2)
    # a draw that two parts share
    both = outcomes(Mixture((RandomFlip(), RandomFlip(horizontal=False))), (3, 3))
    assert both == {Flip(): 0.5, Flip(horizontal=True): 0.25, Flip(vertical=True): 0.25}
    with pytest.raises(UserError, match=r"RandomAffine are not finitely many.*use shift, crop"):
        outcomes(Mixture((T1, RandomAffine())), (3, 3))


def test_network_savings_are_timed_side_by_side() -> None:
    found = network_savings("model=resnet_tiny_was", [1, 2], 3, ["cpu"], lambda text: None, least_seconds=0)
    assert [(x.device, x.batch) for x in found.latencies] == [("cpu", 1), ("cpu", 2)]
    assert set(found.fvcore_macs) == {(0, 0), (1, 0), (1, 1)}
    assert all(computed == counted for computed, counted in found.fvcore_macs.values())
    for latency in found.latencies:
        assert len(latency.timings) == 5
        assert all(len(t.seconds) == 3 and min(t.seconds) > 0 for t in latency.timings.values())
        ratio = latency.relative("materialised", "zero-filled", (1, 1))
        assert 0 < ratio.low <= ratio.high < math.inf and ratio.fastest > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model=resnet_tiny_was method=sgd", "DOM needs shadow weights and SGD has none; use method=was"),
        ("model=resnet18was", "unknown model 'resnet18was'; did you mean 'resnet18_was'"),
        ("model=vit_tiny method.layers=none", "layers='none' matches no convolution"),
        ("model='", "can't read the network"),
    ],
)
def test_bad_networks(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        network_savings(text, [1], 0, ["cpu"], lambda text: None)
