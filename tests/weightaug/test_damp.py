"""DAMP and DAAP beyond the authors' vectors: noise, options, limits, bad input."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import batch, gradients, mixed
from torch import nn

from baselines import SGD
from weightaug import DAAP, DAMP, Method, Part, RandomSource


def step(method: Method, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    method.model.zero_grad()
    return method.backward(F.cross_entropy, x, y), gradients(method.model)


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from([DAMP, DAAP]),
    st.sampled_from(["gaussian", "uniform"]),
    st.sampled_from(["kernels", "kernels_and_scales", "all"]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_no_noise_and_one_copy_is_sgd_bit_for_bit(
    kind: Any, noise: str, perturb: str, dtype: torch.dtype
) -> None:
    x, y = batch(5, dtype=dtype)
    noisy = kind(mixed(dtype=dtype), sigma=0.0, sub_batches=1, noise=noise, perturb=perturb)
    plain = SGD(mixed(dtype=dtype))
    for _ in range(2):
        (loss, ours), (expected_loss, expected) = step(noisy, x, y), step(plain, x, y)
        assert torch.equal(loss, expected_loss)
        assert all(torch.equal(ours[name], expected[name]) for name in expected)
    for ours_buffer, buffer in zip(noisy.model.buffers(), plain.model.buffers(), strict=True):
        assert torch.equal(ours_buffer, buffer)


@pytest.mark.parametrize("n", [8, 7])
def test_no_noise_and_many_copies_is_sgd_up_to_rounding(n: int) -> None:
    x, y = batch(n)
    loss, ours = step(DAMP(mixed(), sigma=0.0, sub_batches=4), x, y)
    expected_loss, expected = step(SGD(mixed()), x, y)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("noise", ["gaussian", "uniform", "log_normal", "bernoulli"])
@pytest.mark.parametrize("sigma", [0.0, 0.2, 0.5])
def test_noise_statistics(noise: str, sigma: float) -> None:
    """xi has mean 1 and standard deviation sigma, and the copies and steps are independent."""
    model = nn.Linear(200, 200)
    nn.init.ones_(model.weight)
    method = DAMP(model, sigma=sigma, sub_batches=2, noise=noise)
    first, second = (w.double() - 1 for w in method._noisy()["weight"])
    count = first.numel()
    assert abs(first.mean()) <= 5 * sigma / math.sqrt(count)
    assert abs(first.std() - sigma) <= 0.03 * sigma
    if sigma:
        method.step += 1
        for other in (second, method._noisy()["weight"][0].double() - 1):
            assert abs((first * other).mean()) < 5 * sigma**2 / math.sqrt(count)
    expected = {
        "gaussian": first.abs().max() > 3 * sigma if sigma else True,
        "uniform": first.abs().max() <= math.sqrt(3) * sigma + 1e-6,
        "log_normal": bool((first > -1).all()),
        "bernoulli": len(first.float().unique()) == (2 if sigma else 1),
    }
    assert expected[noise]
    if noise == "bernoulli" and sigma:
        share = (first == -1).double().mean()
        assert abs(share - sigma**2 / (1 + sigma**2)) < 0.01
        assert first.min() == -1


def test_noise_is_a_function_of_seed_step_and_copy() -> None:
    like = {"a": torch.zeros(3, 2), "b": torch.zeros(4)}
    source = RandomSource(5)
    all_copies = source.normal(like, 7, range(4))
    assert all_copies["a"].shape == (4, 3, 2)
    assert all_copies["b"].shape == (4, 4)
    later = RandomSource(5).normal(like, 7, [2, 3])
    assert all(torch.equal(all_copies[name][2:], later[name]) for name in like)
    for seed, number in ((6, 7), (5, 8)):
        assert not torch.equal(RandomSource(seed).normal(like, number, [2])["a"], later["a"][:1])


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("chain_rule", [True, False])
def test_gradient_is_the_definition(m: int, chain_rule: bool) -> None:
    """Against autograd on the plain model, one sub-batch at a time (no BatchNorm, so nothing couples them)."""
    x, y = batch(6)
    method = DAMP(mixed(batch_norm=False), sigma=0.3, sub_batches=m, perturb="all", chain_rule=chain_rule)
    _, ours = step(method, x, y)
    model = mixed(batch_norm=False)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    noise = method.random.normal(start, 0, range(m))
    expected = {name: torch.zeros_like(p) for name, p in start.items()}
    for copy in range(m):
        factor = {name: 1 + 0.3 * z[copy].double() for name, z in noise.items()}
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(start[name] * factor[name])
        rows = slice(copy * 6 // m, (copy + 1) * 6 // m)
        _, own = step(SGD(model), x[rows], y[rows])
        for name, g in own.items():
            expected[name] += (g * factor[name] if chain_rule else g) / m
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-8)  # sigma * z is rounded to float32


def test_daap_adds() -> None:
    model = mixed()
    method = DAAP(model, sigma=0.01, sub_batches=2)
    z = method.random.normal(dict(method.perturbed), 0, range(2))
    for name, weight in method._noisy().items():
        torch.testing.assert_close(
            weight - method.perturbed[name], 0.01 * z[name].double(), rtol=1e-6, atol=1e-9
        )
    assert set(method.perturbed) == set(DAMP(model).perturbed)


def test_frozen_parameters_are_not_perturbed() -> None:
    model = mixed()
    method = DAMP(model, perturb="all")
    model.stem.requires_grad_(False)
    assert set(method._noisy()) == {
        name for name, p in model.named_parameters() if not name.startswith("stem")
    }


def test_a_batch_that_does_not_divide_keeps_every_example() -> None:
    """The loss is the mean over all 7 examples, and the gradient that of this loss."""
    x, y = batch(7)
    method = DAMP(mixed(batch_norm=False), sub_batches=3)
    loss, ours = step(method, x, y)
    losses, expected = [], None
    for rows, share in ((slice(0, 3), 3 / 7), (slice(3, 5), 2 / 7), (slice(5, 7), 2 / 7)):
        one = DAMP(mixed(batch_norm=False), sub_batches=3)
        part = Part(len(losses), 3, rows.start, rows.stop - rows.start, 7)
        own_loss = one.backward(F.cross_entropy, x[rows], y[rows], part)
        own = gradients(one.model)
        losses.append(own_loss * share)
        own = {name: g * share for name, g in own.items()}
        expected = own if expected is None else {name: expected[name] + g for name, g in own.items()}
    torch.testing.assert_close(loss, sum(losses))
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (DAMP, {"sigma": -0.1}, "sigma=-0.1 is no standard deviation: use 0 or more"),
        (DAMP, {"sigma": float("nan")}, "sigma=nan"),
        (DAMP, {"sigma": float("inf")}, "sigma=inf is no standard deviation"),
        (DAMP, {"noise": "laplace"}, "unknown noise 'laplace'; use one of gaussian"),
        (DAMP, {"perturb": "weights"}, "unknown group of parameters 'weights'"),
        (DAMP, {"sub_batches": 0}, "at least one sub-batch"),
        (DAAP, {"noise": "bernoulli"}, "use gaussian or uniform"),
        (DAAP, {"sigma": -1.0}, "use 0 or more"),
    ],
)
def test_bad_options(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(mixed(), **options)


def test_bad_models_and_batches() -> None:
    with pytest.raises(ValueError, match="no trainable parameter"):
        DAMP(nn.ReLU())
    with pytest.raises(ValueError, match="a batch of 3 cannot be split into 8 sub-batches"):
        DAMP(mixed()).backward(F.cross_entropy, *batch(3))
