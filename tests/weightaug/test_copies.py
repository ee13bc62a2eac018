"""The stacked forward pass against one pass per sub-batch, and against the plain model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import batch, mixed
from stacked_copies import assert_stacked_equals_loop, different_copies
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig

from weightaug import WeightCopies

SPLITS = st.integers(1, 4).flatmap(lambda m: st.tuples(st.just(m), st.integers(m, 9)))


@settings(max_examples=12, deadline=None)
@given(
    SPLITS,
    st.sampled_from(["no BatchNorm", "separate", "evaluation"]),
    st.sampled_from(["biased", "unbiased"]),
)
def test_stacked_equals_loop(split: tuple[int, int], norm: str, variance: str) -> None:
    m, n = split
    model = mixed(batch_norm=norm != "no BatchNorm").train(norm != "evaluation")
    sync = "separate" if norm == "separate" else "synchronised"
    assert_stacked_equals_loop(model, m, batch(n)[0], batch_norm=sync, running_variance=variance)


class Tokens(nn.Module):
    """Layers on tokens: embedding, RMSNorm, attention with every option, a repeated class token."""

    def __init__(self, options: dict[str, Any], call: dict[str, Any], context: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8, padding_idx=0)
        self.norm = nn.RMSNorm(8)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)
        self.call, self.context = call, context

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embedding(x))
        x = torch.cat([self.token.repeat(len(x), 1, 1), x], dim=1)
        other = torch.cat([x, x], dim=1)[..., : self.attention.kdim] if self.context else x
        call = {key: make(x) for key, make in self.call.items()}
        y, attention = self.attention(x, other, other, **call)
        return y if attention is None else torch.cat([y.flatten(1), attention.flatten(1)], dim=1)


def padding(x: Tensor) -> Tensor:
    mask = x[..., 0] > 0
    mask[:, 0] = False  # something must be left to attend to
    return mask


ATTENTIONS: list[tuple[dict[str, Any], dict[str, Callable[[Tensor], Any]], bool]] = [
    ({}, {}, False),
    ({}, {"need_weights": lambda x: False}, False),
    ({"bias": False}, {"need_weights": lambda x: False}, False),
    ({}, {"key_padding_mask": padding}, False),
    ({}, {"attn_mask": lambda x: torch.ones(x.shape[1], x.shape[1]).tril() == 0}, False),
    (
        {},
        {"attn_mask": lambda x: padding(x)[:, None].repeat_interleave(2, 0).repeat(1, x.shape[1], 1)},
        False,
    ),
    ({"add_bias_kv": True, "add_zero_attn": True}, {}, False),
    ({}, {}, True),
    ({"kdim": 4, "vdim": 4}, {}, True),
]


@pytest.mark.parametrize(("options", "call", "context"), ATTENTIONS)
@pytest.mark.parametrize("n", [6, 5])
def test_attention_and_embedding(options: Any, call: Any, context: bool, n: int) -> None:
    torch.manual_seed(0)
    assert_stacked_equals_loop(Tokens(options, call, context).double(), 2, torch.randint(11, (n, 4)))


@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.Conv1d(3, 4, 3), (3, 9)),
        (lambda: nn.Conv3d(3, 4, 2, bias=False), (3, 3, 3, 3)),
        (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=1), (3, 4, 4)),
        (
            lambda: nn.Sequential(
                nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 2, bias=False)
            ),
            (3,),
        ),
        (
            lambda: nn.Sequential(nn.BatchNorm3d(3), nn.Flatten(), nn.LayerNorm([24], bias=False)),
            (3, 2, 2, 2),
        ),
        (lambda: nn.GroupNorm(1, 3), (3, 5)),
        (lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), (4, 8)),
    ],
)
def test_other_layers(layer: Callable[[], nn.Module], shape: tuple[int, ...], n: int) -> None:
    torch.manual_seed(0)
    assert_stacked_equals_loop(layer().double(), 3, torch.randn(n, *shape).double(), batch_norm="separate")


@pytest.mark.parametrize(
    "build",
    [
        lambda: torchvision.models.ShuffleNetV2([1, 1, 1], [8, 8, 16, 32, 32], 3),
        lambda: torchvision.models.VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=3),
        lambda: torchvision.models.ConvNeXt(
            [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=3
        ),
        lambda: torchvision.models.MobileNetV2(3, width_mult=0.25),
        lambda: torchvision.models.DenseNet(4, (2, 2), 8, num_classes=3),
        lambda: torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=3),
        lambda: torchvision.models.MaxVit((32, 32), 8, 4, [8, 8], [1, 1], 4, 0.0, num_classes=3),
    ],
)
def test_torchvision_unchanged(build: Callable[[], nn.Module]) -> None:
    """In evaluation mode, for dropout and stochastic depth draw differently in one pass and in several."""
    torch.manual_seed(0)
    assert_stacked_equals_loop(build().double().eval(), 2, torch.randn(2, 3, 32, 32).double())


@settings(max_examples=12, deadline=None)
@given(SPLITS, st.sampled_from(["biased", "unbiased"]))
def test_identical_copies_are_the_plain_model(split: tuple[int, int], variance: str) -> None:
    """With synchronised BatchNorm in training, also where the sub-batches differ in size."""
    m, n = split
    n = max(n, 2)
    (x, y), plain, copied = batch(n), mixed(), mixed()
    loss = F.cross_entropy(plain(x), y)
    loss.backward()
    weights = {name: p.expand(m, *p.shape) for name, p in copied.named_parameters()}
    ours = F.cross_entropy(WeightCopies(copied, m, running_variance=variance).forward(weights, x), y)
    ours.backward()
    torch.testing.assert_close(ours, loss, rtol=1e-12, atol=0)
    for p, reference in zip(copied.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, reference.grad, rtol=1e-9, atol=1e-12)
    count = n * 64
    biased = 0.9 + (plain.norm.running_var - 0.9) * (count - 1) / count
    expected = biased if variance == "biased" else plain.norm.running_var
    torch.testing.assert_close(copied.norm.running_var, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(copied.norm.running_mean, plain.norm.running_mean, rtol=1e-12, atol=0)
    assert copied.norm.num_batches_tracked == 1


@settings(max_examples=6, deadline=None)
@given(st.permutations(range(3)), st.booleans())
def test_permuting_sub_batches_permutes_copies(order: list[int], batch_norm: bool) -> None:
    model, (x, _) = mixed(batch_norm=batch_norm), batch(6)
    weights = different_copies(model, 3)
    plain = WeightCopies(model, 3).forward(weights, x)
    moved = {name: weight[order] for name, weight in weights.items()}
    permuted = WeightCopies(model, 3).forward(moved, x.view(3, 2, 3, 8, 8)[order].flatten(0, 1))
    torch.testing.assert_close(permuted, plain.view(3, 2, -1)[order].flatten(0, 1), rtol=1e-10, atol=1e-12)


def test_only_given_parameters_are_stacked() -> None:
    model, (x, _) = mixed(), batch(4)
    weights = {
        name: w for name, w in different_copies(model, 2).items() if "stem" in name or "head.bias" in name
    }
    full = {name: weights.get(name, p.expand(2, *p.shape)) for name, p in model.named_parameters()}
    torch.testing.assert_close(
        WeightCopies(model, 2).forward(weights, x), WeightCopies(model, 2).forward(full, x)
    )


@pytest.mark.parametrize("options", [{"momentum": None}, {"track_running_stats": False}, {"affine": False}])
@pytest.mark.parametrize("variance", ["biased", "unbiased"])
@pytest.mark.parametrize("sync", ["synchronised", "separate"])
def test_batch_norm_options(options: dict[str, Any], variance: str, sync: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, **options)).double()
    copies = WeightCopies(model, 2, sync, variance)
    weights = {name: p.expand(2, *p.shape) for name, p in model.named_parameters()}
    seen = []
    for step in range(2):
        x, _ = batch(4, step)
        y = model[0](x) if sync == "synchronised" else model[0](x[:2])
        seen.append((y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=variance == "unbiased")))
        assert copies.forward(weights, x).shape == (4, 4, 8, 8)
    if "track_running_stats" in options:
        assert not list(model.buffers())
    elif "momentum" in options:  # the plain average over the steps
        torch.testing.assert_close(model[1].running_mean, (seen[0][0] + seen[1][0]) / 2)
        torch.testing.assert_close(model[1].running_var, (seen[0][1] + seen[1][1]) / 2)
    else:
        torch.testing.assert_close(model[1].running_var, 0.81 + 0.09 * seen[0][1] + 0.1 * seen[1][1])


@pytest.mark.parametrize("m", [1, 2])
@pytest.mark.parametrize("stacked", [True, False])
def test_statistics_can_be_kept(m: int, stacked: bool) -> None:
    model, (x, _) = mixed(), batch(4)
    before = [buffer.clone() for buffer in model.buffers()]
    copies = WeightCopies(model, m, "separate", "biased", stacked=stacked)
    copies.forward(different_copies(model, m), x, keep_statistics=True)
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    copies.forward(different_copies(model, m), x)
    assert not torch.equal(before[0], model.norm.running_mean)


@pytest.mark.parametrize(("low", "allowed"), [(torch.bfloat16, 0.02), (torch.float16, 0.002)])
def test_autocast_types_are_the_plain_models(low: torch.dtype, allowed: float) -> None:
    """Of every activation, while the numbers stay those of full precision up to rounding."""
    model, x = mixed(dtype=torch.float32), batch(6, dtype=torch.float32)[0]
    seen: list[torch.dtype] = []
    for module in model.children():
        module.register_forward_hook(lambda module, args, out: seen.append(getattr(out, "dtype", low)))
    weights, copies = different_copies(model, 2), WeightCopies(model, 2)
    full = copies.forward(weights, x)
    seen.clear()
    with torch.autocast("cpu", low):
        model(x)
        plain = list(seen)
        seen.clear()
        output = copies.forward(weights, x)
    assert seen == plain
    assert (output - full).abs().max() < allowed * full.abs().max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sub_batches": 0}, "sub_batches=0: at least one"),
        ({"batch_norm": "synced"}, "unknown batch_norm 'synced'; use synchronised or separate"),
        ({"running_variance": "flax"}, "unknown running_variance 'flax'; use unbiased or biased"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightCopies(mixed(), **options)


def test_sync_batch_norm_is_refused() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(mixed())
    with pytest.raises(ValueError, match="use BatchNorm, or one sub-batch per process"):
        WeightCopies(model, 2)
    assert len(WeightCopies(model, 1)) == 1


def test_sub_batches() -> None:
    copies = WeightCopies(mixed(), 3)
    assert [copies.sizes(n) for n in (3, 8, 9)] == [[1, 1, 1], [3, 3, 2], [3, 3, 3]]
    with pytest.raises(ValueError, match="a batch of 2 cannot be split into 3 sub-batches"):
        copies.sizes(2)
