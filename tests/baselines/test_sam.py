"""SAM and ASAM beyond the authors' vectors: definition, limits, presets, bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import batch, gradients, mixed
from torch import nn

from baselines import ASAM, SAM, SGD
from baselines.sam import PRESETS
from weightaug import Method


def step(method: Method, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    method.model.zero_grad()
    return method.backward(F.cross_entropy, x, y), gradients(method.model)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from([SAM, ASAM]), st.sampled_from([torch.float32, torch.float64]), st.integers(2, 6))
def test_no_radius_and_one_sub_batch_is_sgd_bit_for_bit(kind: Any, dtype: torch.dtype, n: int) -> None:
    x, y = batch(n, dtype=dtype)
    sharp, plain = kind(mixed(dtype=dtype), rho=0.0, sub_batches=1), SGD(mixed(dtype=dtype))
    for _ in range(2):
        (loss, ours), (expected_loss, expected) = step(sharp, x, y), step(plain, x, y)
        assert torch.equal(loss, expected_loss)
        assert all(torch.equal(ours[name], expected[name]) for name in expected)
    for buffer, expected_buffer in zip(sharp.model.buffers(), plain.model.buffers(), strict=True):
        assert torch.equal(buffer, expected_buffer)


@pytest.mark.parametrize("kind", [SAM, ASAM])
@pytest.mark.parametrize("n", [8, 7])
def test_no_radius_and_many_sub_batches_is_sgd_up_to_rounding(kind: Any, n: int) -> None:
    x, y = batch(n)
    loss, ours = step(kind(mixed(), rho=0.0, sub_batches=4), x, y)
    expected_loss, expected = step(SGD(mixed()), x, y)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize(("m", "n"), [(1, 6), (3, 6), (3, 7)])
def test_gradient_is_the_definition(adaptive: bool, m: int, n: int) -> None:
    """Against a plain loop that moves the weights themselves, where no BatchNorm couples the sub-batches.

    epsilon is large, to show that it belongs to the mean loss of the sub-batch, whatever its size.
    """
    x, y = batch(n)
    options: dict[str, Any] = {"rho": 0.5, "sub_batches": m, "epsilon": 0.3}
    if adaptive:
        options |= {"eta": 0.1, "normalise": "all"}
    loss, ours = step((ASAM if adaptive else SAM)(mixed(batch_norm=False), **options), x, y)
    model = mixed(batch_norm=False)
    parameters = dict(model.named_parameters())
    start = {name: p.detach().clone() for name, p in parameters.items()}
    factor = {
        name: p.abs() + 0.1 * p.sign().abs() if adaptive else torch.ones_like(p) for name, p in start.items()
    }
    expected = {name: torch.zeros_like(p) for name, p in start.items()}
    expected_loss = torch.zeros(())
    for rows in torch.arange(n).tensor_split(m):
        own_loss, own = step(SGD(model), x[rows], y[rows])
        norm = torch.stack([(factor[name] * g).norm() for name, g in own.items()]).norm()
        with torch.no_grad():
            for name, g in own.items():
                parameters[name].add_(0.5 * factor[name] ** 2 * g / (norm + 0.3))
        _, uphill = step(SGD(model), x[rows], y[rows])
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(start[name])
                expected[name] += uphill[name] * len(rows) / n
        expected_loss = expected_loss + own_loss * len(rows) / n
    torch.testing.assert_close(loss, expected_loss)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


def test_zero_gradient_leaves_the_copy_where_it_is() -> None:
    model = nn.Linear(3, 2).double()
    x, y = torch.zeros(4, 3).double(), torch.zeros(4)
    for m in (1, 2):
        loss = SAM(model, sub_batches=m).backward(lambda logits, y: 0 * logits.sum() + 1, x, y)
        assert loss == 1
        assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients(model).values())


@pytest.mark.parametrize("m", [1, 2])
def test_running_statistics(m: int) -> None:
    """From the first pass alone they are SGD's; from both they moved twice."""
    x, y = batch(6)
    plain, first, both = (mixed() for _ in range(3))
    SGD(plain).backward(F.cross_entropy, x, y)
    SAM(first, sub_batches=m).backward(F.cross_entropy, x, y)
    SAM(both, sub_batches=m, statistics="both").backward(F.cross_entropy, x, y)
    torch.testing.assert_close(dict(first.named_buffers()), dict(plain.named_buffers()))
    assert both.norm.num_batches_tracked == 2
    assert (both.norm.running_mean - plain.norm.running_mean).norm() > (plain.norm.running_mean).norm() / 2


def test_eta_where_a_weight_is_zero() -> None:
    model = nn.Linear(2, 2).double()
    nn.init.zeros_(model.weight)
    weight, bias = model.weight.detach(), model.bias.detach()
    official, samsung = ASAM(model, eta=0.1), ASAM(model, eta=0.1, eta_at_zero=True)
    assert torch.equal(official._factor("weight", weight), torch.zeros(2, 2).double())
    assert torch.equal(samsung._factor("weight", weight), torch.full((2, 2), 0.1, dtype=torch.float64))
    assert official._factor("bias", bias) is None
    assert torch.equal(ASAM(model, normalise="all")._factor("bias", bias), bias.abs())


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", [SAM, ASAM])
def test_presets_are_constructor_arguments(kind: Any, preset: str) -> None:
    method = kind(mixed(), preset=preset)
    values = PRESETS[preset]
    assert len(method.copies) == values["sub_batches"]
    assert method.epsilon == values["epsilon"]
    assert method.statistics == values["statistics"]
    assert method.copies.running_variance == values["running_variance"]
    if kind is ASAM:
        assert len(method.normalised) == len(ASAM(mixed(), normalise=values["normalise"]).normalised)
        assert method.eta_at_zero == values["eta_at_zero"]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (SAM, {"rho": -0.05}, "rho=-0.05 is no radius: use 0 or more"),
        (SAM, {"rho": float("inf")}, "rho=inf is no radius"),
        (SAM, {"epsilon": -1.0}, "epsilon=-1.0 is negative"),
        (SAM, {"statistics": "second"}, "unknown statistics 'second'; use first or both"),
        (
            SAM,
            {"preset": "davda"},
            "unknown preset 'davda'; use one of official-damp-paper, davda54, samsung",
        ),
        (SAM, {"preset": "davda54", "sub_batches": 4}, "preset 'davda54' sets sub_batches=1: leave out"),
        (ASAM, {"eta": -0.1}, "eta=-0.1 is negative"),
        (ASAM, {"normalise": "weights"}, "unknown group of parameters"),
    ],
)
def test_bad_options(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(mixed(), **options)


def test_bad_models_and_batches() -> None:
    with pytest.raises(ValueError, match="no trainable parameter"):
        SAM(nn.ReLU())
    with pytest.raises(ValueError, match="a batch of 3 cannot be split into 8 sub-batches"):
        SAM(mixed()).backward(F.cross_entropy, *batch(3))
