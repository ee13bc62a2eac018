"""Dropout: where it goes, that it drops what it says, that it leaves nothing behind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from baselines import SGD, Dropout
from baselines.dropout import dropout_places
from benchmarks.models import preact_resnet, resnet, vit


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 3))


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    return torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(seed)), torch.arange(6) % 3


def small_vit() -> nn.Module:
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(8, 4, 2, 2, 16, 32, num_classes=3)
    nn.init.normal_(model.heads.head.weight)  # zero at first, so that no output would depend on a mask
    return model


def small_resnet() -> nn.Module:
    torch.manual_seed(0)
    return resnet.build(
        num_classes=3, in_channels=3, image_size=8, blocks="1,2", width=4, zero_init_gamma=False
    )


class TimmLikeAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(4, 12), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.qkv(x)[..., :4])


class TimmLikeMlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.act, self.drop1, self.fc2 = (
            nn.Linear(4, 8),
            nn.GELU(),
            nn.Dropout(0.0),
            nn.Linear(8, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.drop1(self.act(self.fc1(x))))


class TimmLikeTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pos_drop, self.attn, self.mlp = nn.Dropout(0.0), TimmLikeAttention(), TimmLikeMlp()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mlp(self.attn(self.pos_drop(x))).mean(1))


def test_places() -> None:
    assert dropout_places(small_resnet()) == {
        "layer1.0.conv2": "input",
        "layer2.0.conv2": "input",
        "layer2.1.conv2": "input",
    }
    bottleneck = torchvision.models.resnet50()
    assert list(dropout_places(bottleneck))[:2] == ["layer1.0.conv2", "layer1.0.conv3"]
    assert len(dropout_places(bottleneck)) == 32
    assert dropout_places(torchvision.models.vgg11_bn()) == {f"classifier.{i}": "input" for i in (0, 3, 6)}
    assert dropout_places(torchvision.models.googlenet(aux_logits=False, init_weights=False)) == {
        "fc": "input"
    }
    layers = [f"encoder.layers.encoder_layer_{i}" for i in (0, 1)]
    expected = {f"{layer}.{part}" for layer in layers for part in ("self_attention", "mlp.1", "mlp.3")}
    assert dropout_places(small_vit()) == dict.fromkeys({*expected, "encoder.dropout"}, "output")
    expected = {"pos_drop", "attn.proj", "mlp.act", "mlp.fc2"}
    assert dropout_places(TimmLikeTransformer()) == dict.fromkeys(expected, "output")
    assert dropout_places(small_resnet(), r"layer\d\.0\.bn1") == {f"layer{i}.0.bn1": "output" for i in (1, 2)}
    out = dropout_places(small_vit(), r".*out_proj")
    assert out == {f"{layer}.self_attention": "output" for layer in layers}
    assert dropout_places(torch.compile(perceptron(), backend="eager"), "3") == {"_orig_mod.3": "output"}


def test_the_suites_models_have_places() -> None:
    preact = preact_resnet.build(num_classes=3, in_channels=3, image_size=8, blocks="1,1", width=4)
    assert dropout_places(preact) == {"layer1.0.conv2": "input", "layer2.0.conv2": "input"}
    model = vit.build(num_classes=3, in_channels=3, image_size=8, patch=4, width=48, depth=2, heads=2, mlp=96)
    places = dropout_places(model)
    assert len([place for place in places if "mlp" in place]) == 4
    assert len([place for place in places if "attention" in place]) == 2
    assert "encoder.dropout" in places
    layer = nn.TransformerEncoderLayer(4, 2, 8)
    assert set(dropout_places(nn.Sequential(layer))) == {"0.self_attn", "0.linear1", "0.linear2"}


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"p is 1\.0; it is a probability"):
        Dropout(perceptron(), p=1.0)
    with pytest.raises(ValueError, match="places='conv' matches no module; names look like 0, 1, 2, 3"):
        Dropout(perceptron(), places="conv")
    with pytest.raises(ValueError, match="is not a regular expression"):
        Dropout(perceptron(), places="(")
    with pytest.raises(ValueError, match="no usual place for dropout"):
        Dropout(nn.Conv2d(3, 3, 3))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), kind=st.sampled_from([perceptron, small_resnet, small_vit]))
def test_p_zero_is_sgd_bit_for_bit(seed: int, kind: Any) -> None:
    x = torch.randn(4, 3, 8, 8) if kind is not perceptron else batch(seed)[0][:4]
    y = torch.tensor([0, 1, 2, 0])
    model, other = kind(), kind()
    losses = [
        SGD(model).backward(F.cross_entropy, x, y),
        Dropout(other, p=0.0).backward(F.cross_entropy, x, y),
    ]
    assert torch.equal(*losses)
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a.grad, b.grad) for a, b in pairs if a.grad is not None)


def test_drops_the_stated_share_and_keeps_the_mean() -> None:
    model = nn.Sequential(nn.Identity(), nn.Flatten())
    method = Dropout(model, p=0.3, places="0")
    seen = {}

    def criterion(output: Tensor, target: Tensor) -> Tensor:
        seen["output"] = output
        return output.sum() * torch.ones((), requires_grad=True)

    method.backward(criterion, torch.ones(100, 400), torch.zeros(100))
    values, counts = seen["output"].unique(return_counts=True)
    assert values.tolist() == pytest.approx([0, 1 / 0.7])
    assert abs(counts[0].item() / 40_000 - 0.3) < 4 * (0.3 * 0.7 / 40_000) ** 0.5


@pytest.mark.parametrize("kind", [perceptron, small_resnet, small_vit])
def test_every_place_is_used_and_only_in_backward(kind: Any) -> None:
    x = torch.randn(4, 3, 8, 8) if kind is not perceptron else batch()[0][:4]
    y = torch.tensor([0, 1, 2, 0])
    model = kind().eval()
    clean = model(x)
    method = Dropout(model, p=0.5)
    assert torch.equal(model(x), clean)
    assert torch.allclose(method.predict(x), clean, atol=1e-5)  # attention has another path without gradients
    assert method.backward(F.cross_entropy, x, y) != F.cross_entropy(clean, y)
    assert method._calls == dict.fromkeys(range(len(method.places)), 1)
    with pytest.raises(ValueError, match="broken"):
        method.backward(broken, x, y)
    assert torch.equal(model(x), clean)
    copied = copy.deepcopy(model)
    assert torch.equal(copied(x), clean)
    method.remove()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(method.backward(F.cross_entropy, x, y), F.cross_entropy(clean, y))


def broken(output: Tensor, target: Tensor) -> Tensor:
    raise ValueError("broken")


def test_masks_are_a_function_of_seed_step_and_place() -> None:
    x, y = batch()
    losses = [Dropout(perceptron(), p=0.5, seed=s).backward(F.cross_entropy, x, y) for s in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    method = Dropout(perceptron(), p=0.5, seed=1)
    assert method.backward(F.cross_entropy, x, y) != method.backward(F.cross_entropy, x, y)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    method.backward(F.cross_entropy, x, y)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("stop", [0, 2])
def test_exact_resume(stop: int) -> None:
    def run(model: nn.Module, method: Dropout, steps: range) -> list[Tensor]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in steps:
            method.backward(F.cross_entropy, *batch(step))
            optimizer.step()
            optimizer.zero_grad()
        return [p.detach().clone() for p in model.parameters()]

    whole = perceptron()
    expected = run(whole, Dropout(whole, p=0.4, seed=6), range(4))
    first = perceptron()
    method = Dropout(first, p=0.4, seed=6)
    run(first, method, range(stop))
    second = perceptron()
    second.load_state_dict(first.state_dict())
    resumed = Dropout(second, p=0.4, seed=77)
    resumed.load_state_dict(method.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(run(second, resumed, range(stop, 4)), expected, strict=True))


def test_compiled_model_has_the_same_masks() -> None:
    x, y = batch()
    eager, compiled = perceptron(), torch.compile(perceptron(), backend="aot_eager")
    first, second = Dropout(eager, p=0.5, seed=1), Dropout(compiled, p=0.5, seed=1)
    for _ in range(3):
        losses = [m.backward(F.cross_entropy, x, y) for m in (first, second)]
        assert torch.allclose(*losses)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert first.backward(F.cross_entropy, x, y).isfinite()
