"""BatchNorm at test time: re-estimated statistics, batch statistics, everything put back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmarks.evaluation.batch_norm import batch_statistics, reestimate
from weightaug import WAS


def model() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.BatchNorm2d(3),
        nn.Dropout(0.5),
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Flatten(),
    )
    network(torch.randn(8, 2, 6, 6))
    return network


BATCHES = [torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(i)) for i in range(3)]


def snapshot(network: nn.Module) -> list[object]:
    modes = [
        (m.training, getattr(m, "momentum", 0), getattr(m, "track_running_stats", 0))
        for m in network.modules()
    ]
    return [modes, {name: tensor.clone() for name, tensor in network.state_dict().items()}]


def same(first: list[object], second: list[object]) -> bool:
    a, b = first[1], second[1]
    return first[0] == second[0] and all(torch.equal(a[name], b[name]) for name in a)  # type: ignore[index]


@pytest.mark.parametrize("training", [True, False])
def test_reestimate_is_the_mean_over_the_batches(training: bool) -> None:
    network = model().train(training)
    network[2].eval()
    before = snapshot(network)
    norm = network[1]
    with reestimate(network, network, BATCHES):
        activations = [network[0](x) for x in BATCHES]
        means = torch.stack([a.mean((0, 2, 3)) for a in activations]).mean(0)
        variances = torch.stack([a.var((0, 2, 3)) for a in activations]).mean(0)
        assert torch.allclose(norm.running_mean, means, atol=1e-6)
        assert torch.allclose(norm.running_var, variances, atol=1e-6)
        assert not norm.training
        assert not same(before, snapshot(network))
    assert same(before, snapshot(network))


def test_each_mode_of_was_gets_its_own_statistics() -> None:
    network = model().eval()
    method = WAS(network, transform="shift", layers="0", seed=1)
    found = {}
    for mode in method.modes:
        with reestimate(network, lambda x, mode=mode: method.predict(x, mode), BATCHES):
            found[mode] = network[1].running_var.clone()
            assert torch.equal(method.predict(BATCHES[0]), network(BATCHES[0]))
    assert not torch.allclose(found["plain"], found["shadow"])


def test_errors_put_everything_back() -> None:
    network = model()
    before = snapshot(network)

    def fails(x: Tensor) -> Tensor:
        network(x)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), reestimate(network, fails, BATCHES):
        pass
    assert same(before, snapshot(network))
    with pytest.raises(ValueError, match="no batches"), reestimate(network, network, []):
        pass
    assert same(before, snapshot(network))
    for context in (reestimate(network, network, BATCHES), batch_statistics(network, dropout=True)):
        with pytest.raises(KeyError), context:
            raise KeyError
    assert same(before, snapshot(network))


def test_batch_statistics() -> None:
    network = model().eval()
    before = snapshot(network)
    x = BATCHES[0]
    with batch_statistics(network):
        first = network[1](network[0](x))
        assert torch.allclose(first.mean((0, 2, 3)), network[1].bias, atol=1e-5)
        assert torch.equal(network(x), network(x))
    assert same(before, snapshot(network))
    with batch_statistics(network, dropout=True):
        assert not torch.equal(network(x), network(x))
    assert same(before, snapshot(network))


def test_models_without_batch_norm() -> None:
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.GroupNorm(1, 3), nn.BatchNorm2d(3, track_running_stats=False)
    )
    unused = iter(BATCHES)
    with reestimate(network, network, unused):
        assert next(unused) is BATCHES[0]
    with batch_statistics(network):
        assert network(BATCHES[0]).shape == (5, 3, 4, 4)
    assert network[2].track_running_stats is False
