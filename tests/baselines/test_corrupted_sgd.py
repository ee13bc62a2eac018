"""SGD on corrupted inputs: a random half is corrupted, one gradient on the union."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines import SGD, CorruptedSGD


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def negate(x: Tensor, generator: torch.Generator) -> Tensor:
    return -x


def noise(x: Tensor, generator: torch.Generator) -> Tensor:
    return x + torch.randn(x.shape, generator=generator)


X, Y = torch.rand(9, 1, 2, 2) + 0.1, torch.arange(9) % 3


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.5, 4), (1.0, 9)])
def test_a_random_part_is_corrupted(fraction: float, count: int) -> None:
    method = CorruptedSGD(model(), corruption=negate, fraction=fraction)
    before = X.clone()
    signs = method.corrupt(X).flatten(1).sign()
    assert (signs[:, 0] < 0).sum() == count
    assert (signs == signs[:, :1]).all()
    assert torch.equal(X, before)


def test_every_example_is_as_likely() -> None:
    method = CorruptedSGD(model(), corruption=negate)
    chosen = torch.zeros(9)
    for step in range(900):
        method.step = step
        chosen += method.corrupt(X)[:, 0, 0, 0] < 0
    # Each count is binomial(900, 4/9), standard deviation 15.
    assert (chosen - 400).abs().max() < 60


def test_gradient_is_that_of_the_union() -> None:
    method = CorruptedSGD(model(), corruption=noise, seed=3)
    reference = model()
    for _ in range(2):
        x = method.corrupt(X)
        assert torch.equal(
            method.backward(F.cross_entropy, X, Y), SGD(reference).backward(F.cross_entropy, x, Y)
        )
    pairs = zip(method.model.parameters(), reference.parameters(), strict=True)
    assert all(torch.equal(a.grad, b.grad) for a, b in pairs)


def test_resumes_exactly() -> None:
    method = CorruptedSGD(model(), corruption=noise, seed=3)
    method.backward(F.cross_entropy, X, Y)
    resumed = CorruptedSGD(model(), corruption=noise, seed=0)
    resumed.load_state_dict(method.state_dict())
    assert torch.equal(method.corrupt(X), resumed.corrupt(X))
    assert not torch.equal(method.corrupt(X), CorruptedSGD(model(), corruption=noise, seed=3).corrupt(X))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"fraction is 1\.5"):
        CorruptedSGD(model(), corruption=negate, fraction=1.5)
    with pytest.raises(ValueError, match="changes the shape of its inputs"):
        CorruptedSGD(model(), corruption=lambda x, g: x[:, :, 0]).backward(F.cross_entropy, X, Y)
