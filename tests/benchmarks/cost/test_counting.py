"""The two counters against each other, against sums by hand and against published numbers."""

from __future__ import annotations

import logging

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from baselines import ASAM, SAM, SGD, Dropout
from benchmarks.cost.counting import count, measured_passes, training_cost
from benchmarks.models import preact_resnet, resnet, vit
from weightaug import DAAP, DAMP, WAS, Criterion, Method

DATA = {"num_classes": 10, "in_channels": 1, "image_size": 8}
TINY = {
    "resnet": lambda: resnet.build(blocks="1,1", width=4, **DATA),
    "bottleneck": lambda: resnet.build(blocks="1,1", width=4, block="bottleneck", stem="imagenet", **DATA),
    "preact": lambda: preact_resnet.build(blocks="1,1", width=4, **DATA),
    "vit": lambda: vit.build(patch=2, width=16, depth=2, heads=2, mlp=24, **DATA),
}


def macs_by_hand(model: nn.Module, x: Tensor) -> int:
    """Outputs x inputs per output, layer by layer, and attention's two products."""
    macs = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        if isinstance(module, nn.Conv2d | nn.Linear):
            macs += output.numel() * module.weight[0].numel()
        elif isinstance(module, vit.Attention):
            n, tokens, width = inputs[0].shape
            macs += n * tokens * width * 3 * width  # queries, keys, values
            macs += 2 * n * tokens * tokens * width

    handles = [module.register_forward_hook(add) for module in model.modules()]
    model.eval()(x)
    for handle in handles:
        handle.remove()
    return macs


@pytest.mark.parametrize("name", TINY)
def test_counters_agree_with_each_other_and_with_hand(name: str) -> None:
    model = TINY[name]()
    cost = count(model, (1, 8, 8))
    assert cost.macs == macs_by_hand(model, torch.zeros(1, 1, 8, 8))
    assert cost.flops == 2 * cost.macs == cost.torch_flops
    assert cost.relative_difference == 0
    assert cost.partings == {}
    assert cost.agree(0)
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    shape_arithmetic = {"aten::sub", "aten::neg", "aten::floor_divide"}
    assert not shape_arithmetic & cost.uncounted_operators.keys()


def test_authors_resnet18() -> None:
    cost = count(resnet.build(num_classes=10, in_channels=3, image_size=32), (3, 32, 32))
    stage1, rest = 5 * 64 * 64 * 9 * 32**2 - 64 * (64 - 3) * 9 * 32**2, 0
    for width, side in (
        (128, 16),
        (256, 8),
        (512, 4),
    ):  # three 3x3 of full width, one of half, a 1x1 projection
        rest += side**2 * width**2 * (9 * 3 + 9 // 2 + 1)
    assert cost.macs == stage1 + rest + 512 * 10 == 555_422_720
    assert cost.other_operations.keys() == {"adaptive_avg_pool2d", "batch_norm"}


@pytest.mark.parametrize("name", ["resnet18", "swin_t"])
def test_published_counts_of_torchvision(name: str) -> None:
    meta = torchvision.models.get_model_weights(name).DEFAULT.meta
    cost = count(torchvision.models.get_model(name, weights=None), (3, 224, 224))
    assert cost.parameters == meta["num_params"]
    assert cost.macs / 1e9 == pytest.approx(meta["_ops"], abs=6e-4)  # torchvision counts multiply-adds
    assert cost.agree(0.01)


def test_attention_of_torch_is_counted() -> None:
    """The fused inference path of nn.MultiheadAttention is invisible to both counters."""
    model = torchvision.models.VisionTransformer(8, 4, 2, 2, 16, 24, num_classes=5)
    cost = count(model, (3, 8, 8))
    tokens, width = 5, 16
    layer = tokens * width * (3 * width + width + 2 * 24) + 2 * tokens**2 * width
    assert cost.macs == 4 * width * 48 + 2 * layer + width * 5
    assert cost.agree(0)
    assert torch.backends.mha.get_fastpath_enabled()


def test_partings_are_located() -> None:
    class Contraction(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensordot(x, self.weight, dims=([2], [1]))

    class Parted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Linear(2, 2)
            self.inner = nn.Sequential(nn.Linear(3, 4), Contraction(4, 8, bias=False))

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    cost = count(Parted(), (6, 3))
    assert cost.uncounted_operators == {"aten::tensordot": 1}
    assert cost.uncalled_modules == ("unused",)
    assert cost.partings == {"inner.1": (0, 2 * 6 * 4 * 8)}
    assert cost.relative_difference < -0.5
    assert not cost.agree(0.02)


@pytest.mark.parametrize("measure", ["count", "training_cost"])
def test_counting_leaves_no_trace(measure: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(TINY["resnet"](), nn.Dropout(0.5))
    model[0].layer1.eval()
    x, y = torch.randn(4, 1, 8, 8), torch.arange(4)
    F.cross_entropy(model(x), y).backward()
    flags = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    random = torch.get_rng_state()
    method = SGD(model)
    if measure == "count":
        count(model, (1, 8, 8))
    else:
        training_cost(method, F.cross_entropy, x, y)
    assert method.step == 0
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), random)


def test_counting_is_silent(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        count(TINY["vit"](), (1, 8, 8))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


class TwoPasses(Method):
    """Two forward and two backward passes, as SAM's."""

    def _backward(self, criterion: Criterion, x: Tensor, y: Tensor) -> Tensor:
        criterion(self.model(x), y).backward()
        loss = criterion(self.model(x), y)
        loss.backward()
        return loss.detach()


class TwoForwards(Method):
    """One pass more without gradients."""

    def _backward(self, criterion: Criterion, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            self.model(x)
        loss = criterion(self.model(x), y)
        loss.backward()
        return loss.detach()


@pytest.mark.parametrize("name", TINY)
def test_passes_are_measured(name: str) -> None:
    model = TINY[name]()
    batch = (F.cross_entropy, torch.randn(4, 1, 8, 8), torch.arange(4))
    assert measured_passes(SGD(model), *batch) == 1
    assert measured_passes(TwoPasses(model), *batch) == 2
    cost = training_cost(TwoForwards(model), *batch)
    assert (cost.forward_passes, cost.backward_passes) == (2, 1)
    assert 1 < cost.passes < 2
    # every layer but the first hands a gradient to its input and one to its weight
    assert 1.5 < cost.plain_backward_flops / cost.plain_forward_flops < 2


@pytest.mark.parametrize("name", ["resnet", "vit"])
@pytest.mark.parametrize("sub_batches", [1, 4])
def test_passes_of_the_methods(name: str, sub_batches: int) -> None:
    model = TINY[name]()
    batch = (F.cross_entropy, torch.randn(8, 1, 8, 8), torch.arange(8))
    for method in (DAMP, DAAP):
        assert measured_passes(method(model, sub_batches=sub_batches), *batch) == 1
    for method in (SAM, ASAM):
        cost = training_cost(method(model, sub_batches=sub_batches), *batch)
        assert (cost.forward_passes, cost.backward_passes) == (2, 2)
    assert measured_passes(Dropout(model), *batch) == 1
    assert 1 <= measured_passes(WAS(model), *batch) < 1.02  # the transforms are small matrix products


class Stacked(Method):
    """Four copies of two convolutions, each for its quarter of the batch, as grouped convolutions."""

    def _backward(self, criterion: Criterion, x: Tensor, y: Tensor) -> Tensor:
        first, second = self.model[0], self.model[1]
        n, *image = x.shape
        x = x.view(4, n // 4, *image).transpose(0, 1).reshape(n // 4, -1, *image[1:])
        for layer in (first, second):
            x = F.conv2d(x, layer.weight.repeat(4, 1, 1, 1), groups=4)
        x = x.view(n // 4, 4, -1, *x.shape[2:]).transpose(0, 1).reshape(n, -1, *x.shape[2:])
        loss = criterion(x.mean((2, 3)), y)
        loss.backward()
        return loss.detach()


def test_stacked_copies_cost_what_they_do() -> None:
    """A grouped convolution of M copies on batch / M each is the work of one copy on the batch."""

    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    model = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.Conv2d(6, 5, 3, bias=False), Mean())
    x, y = torch.randn(8, 3, 8, 8), torch.arange(8) % 5
    cost = training_cost(Stacked(model), F.cross_entropy, x, y)
    assert (cost.forward_passes, cost.backward_passes, cost.passes) == (1, 1, 1)
    by_hand = 2 * 8 * (6 * 36 * 27 + 5 * 16 * 54)
    assert cost.plain_forward_flops == by_hand
    assert cost.plain_backward_flops == 2 * by_hand - 2 * 8 * 6 * 36 * 27  # no gradient of the images
