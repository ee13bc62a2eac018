"""The DAMP paper's networks against the authors' outputs, and against facts about them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from golden_files import SELECTION
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.config import load
from benchmarks.errors import UserError
from benchmarks.models import preact_resnet, resnet, vit
from benchmarks.models.layers import SameConv2d, SameMaxPool2d, pad_same

ROOT = Path(__file__).parents[3]
COMPACT = ROOT / "tests/goldens/damp_model_logits.npz"
FULL = Path(os.environ.get("WEIGHTAUG_GOLDENS", ROOT.parent / "shared/goldens"))


def build(network: str, padding: str, **changes: object) -> nn.Module:
    """The small network of the goldens' case."""
    common = {"num_classes": 10, "in_channels": 3, "image_size": 16, **changes}
    if network == "vit":
        return vit.build(patch=4, width=16, depth=2, heads=2, mlp=32, **common)
    if network == "preact":
        return preact_resnet.build(blocks="2,2,1", width=3, padding=padding, **common)
    if network == "bottleneck":
        common["image_size"] = 32
        knobs = {"blocks": "1,1,1", "width": 3, "block": "bottleneck", "stem": "imagenet"}
        return resnet.build(padding=padding, **knobs, **common)
    if network == "resnet18":
        return resnet.build(blocks="2,2,2,2", width=2, padding=padding, **common)
    return resnet.build(blocks="1,1,1", width=4, padding=padding, **common)


CASES = {
    "damp_resnet_same_sync_m4": ("resnet", "same"),
    "damp_resnet_sym_sync_m4": ("resnet", "symmetric"),
    "damp_resnet18_sym_sync_m8": ("resnet18", "symmetric"),
    "damp_preact_same_sync_m4": ("preact", "same"),
    "damp_preact_sym_sync_m4": ("preact", "symmetric"),
    "damp_bottleneck_imnet_same_sync_m2": ("bottleneck", "same"),
    "damp_bottleneck_imnet_sym_sync_m2": ("bottleneck", "symmetric"),
    "damp_vit_sgd_m4": ("vit", ""),
    "damp_vit_adamw_m4": ("vit", ""),
}


def golden(case: str) -> tuple[dict[str, Tensor], Tensor, Tensor] | None:
    """State, inputs and logits of a case: from the full set, else from the selection that travels along."""
    full = FULL / f"{case}.npz"
    if full.exists():
        arrays = np.load(full)
        start, x, logits = ("param_after3/", "buffer_after3/"), arrays["x"][0], arrays["eval_logits_after3"]
        state = {name.split("/")[1]: arrays[name] for name in arrays.files if name.startswith(start)}
    else:
        arrays = np.load(COMPACT)
        if f"{case}/x" not in arrays:
            return None
        start, x, logits = (
            (f"{case}/param/", f"{case}/buffer/"),
            arrays[f"{case}/x"],
            arrays[f"{case}/logits"],
        )
        state = {name.split("/")[2]: arrays[name] for name in arrays.files if name.startswith(start)}
    return {k: torch.from_numpy(v) for k, v in state.items()}, torch.from_numpy(x), torch.from_numpy(logits)


@pytest.mark.parametrize("case", [case for case in CASES if golden(case) is not None])
def test_logits_equal_the_authors(case: str) -> None:
    state, x, logits = golden(case)
    model = build(*CASES[case]).double().eval()
    own = {name: value for name, value in model.state_dict().items() if "num_batches" not in name}
    assert {name: value.shape for name, value in own.items()} == {k: v.shape for k, v in state.items()}
    model.load_state_dict(state, strict=False)
    with torch.no_grad():
        difference = (model(x.double()) - logits).abs().max() / logits.abs().max()
    assert difference < 1e-12  # float64 rounding; the measured agreement of the goldens is 5e-14


def test_the_padding_variant_matters() -> None:
    state, x, logits = golden("damp_resnet_same_sync_m4")
    model = build("resnet", "symmetric").double().eval()
    model.load_state_dict(state, strict=False)
    assert (model(x.double()) - logits).abs().max() > 1e-3


@pytest.mark.parametrize(("size", "pads"), [(8, (0, 1)), (7, (1, 1))])
def test_same_padding_by_hand(size: int, pads: tuple[int, int]) -> None:
    x = torch.rand(1, 1, size, 6)
    assert torch.equal(pad_same(x, (3, 3), (2, 2)), F.pad(x, (0, 1, *pads)))
    pooled = SameMaxPool2d(3, 2)(x - 2)  # all negative: padding by zero would win
    assert pooled.shape[-2:] == (4, 3)
    assert pooled.max() < 0


PARAMETERS = {  # name: classes, channels, image size, parameters
    "resnet18_cifar": (10, 3, 32, 11_173_962),
    "resnet34_cifar": (10, 3, 32, 21_282_122),
    "preact_resnet18": (200, 3, 64, 11_269_640),
    "resnet50": (1000, 3, 224, 25_557_032),  # as torchvision's
    "vit_s16": (1000, 3, 224, 22_050_664 - 384 - 197 * 384),  # no class token, no learned positions
    "vit_b16": (1000, 3, 224, 86_567_656 - 768 - 197 * 768),  # torchvision's without the same two
    "resnet_tiny": (10, 1, 8, 19_810),
    "vit_tiny": (10, 1, 8, 39_322),
}


def from_config(name: str, **data: int) -> nn.Module:
    return load([f"model={name}"])[0].model.build(**data)


AUTHORS = json.loads((SELECTION / "damp_networks.json").read_text())["nets"]


def pads(layer: nn.Conv2d | nn.MaxPool2d, side: int) -> list[list[int]]:
    """[[top, bottom], [left, right]] of a layer on images of ``side`` x ``side``."""
    if isinstance(layer, SameConv2d | SameMaxPool2d):
        kernel, stride = ((n,) * 2 if isinstance(n, int) else n for n in (layer.kernel_size, layer.stride))
        inside = pad_same(torch.ones(1, 1, side, side, device="cpu"), kernel, stride)[0, 0] > 0
        lines = (inside.any(1), inside.any(0))
        return [[int(line.int().argmax()), int(line.flip(0).int().argmax())] for line in lines]
    padding = (layer.padding,) * 2 if isinstance(layer.padding, int) else layer.padding
    return [[n, n] for n in padding]


@pytest.mark.parametrize("name", AUTHORS)
def test_every_layer_is_the_authors(name: str) -> None:
    """Full size, against what the authors' code makes: convolutions in order, pools, sums of the rest."""
    authors = AUTHORS[name]
    size = authors["image_size"]
    convolutions, pools, linear_macs = [], [], 0

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal linear_macs
        if isinstance(module, nn.Conv2d):
            weight, side = list(module.weight.shape), list(output.shape[-2:])
            macs = output.numel() * module.weight[0].numel()
            form = {"stride": list(module.stride), "padding": pads(module, inputs[0].shape[-1])}
            convolutions.append({"weight": weight, **form, "out_hw": side, "macs": macs})
        elif isinstance(module, nn.MaxPool2d):
            kernel, stride = [module.kernel_size] * 2, [module.stride] * 2
            pools.append({"window": kernel, "stride": stride, "padding": pads(module, inputs[0].shape[-1])})
        elif isinstance(module, nn.Linear):
            linear_macs += output.numel() * module.in_features
        elif isinstance(module, vit.Attention):
            linear_macs += inputs[0].numel() * module.in_proj_weight.shape[0]  # queries, keys, values

    with torch.device("meta"):
        model = from_config(name, num_classes=authors["classes"], in_channels=3, image_size=size).eval()
        for module in model.modules():
            module.register_forward_hook(note)
        model(torch.empty(1, 3, size, size))
    assert convolutions == authors["convs"]
    assert pools == authors["max_pools"]
    assert linear_macs == authors["linear_macs"]
    assert sum(p.numel() for p in model.parameters()) == authors["parameters"]
    statistics = [b for n, b in model.named_buffers() if "running" in n]
    assert sum(b.numel() for b in statistics) == authors["buffers"]
    tokens, width = (size // 16) ** 2, model.heads.head.in_features if "vit" in name else 0
    assert 2 * 12 * tokens**2 * width == authors["attention_macs"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name: str) -> None:
    classes, channels, size, parameters = PARAMETERS[name]
    with torch.device("meta"):
        model = from_config(name, num_classes=classes, in_channels=channels, image_size=size)
        assert model(torch.empty(2, channels, size, size)).shape == (2, classes)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_resnet50_has_torchvisions_layers() -> None:
    with torch.device("meta"):
        ours = from_config("resnet50", num_classes=1000, in_channels=3, image_size=224)
        theirs = torchvision.models.resnet50(weights=None)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    strides = {name: m.stride for name, m in theirs.named_modules() if isinstance(m, nn.Conv2d)}
    assert {name: m.stride for name, m in ours.named_modules() if isinstance(m, nn.Conv2d)} == strides


def test_symmetric_resnet_equals_torchvisions() -> None:
    theirs = torchvision.models.resnet18(weights=None, num_classes=7).eval()
    knobs = {"stem": "imagenet", "padding": "symmetric"}
    ours = resnet.build(num_classes=7, in_channels=3, image_size=64, **knobs).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(x), theirs(x))


def test_official_initialisation_of_resnets() -> None:
    torch.manual_seed(1)
    model = resnet.build(num_classes=10, in_channels=3, image_size=32)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            z = module.weight.detach() * (module.out_channels * module.weight[0, 0].numel() / 2) ** 0.5
            assert abs(z.std() - 1) < 6 / (2 * z.numel()) ** 0.5, name
            assert z.abs().max() > 3 or z.numel() < 2000, "normal, not truncated"
        elif isinstance(module, nn.BatchNorm2d):
            assert torch.all(module.weight == (0 if name.endswith("bn2") else 1)), name
            assert torch.all(module.bias == 0)
    assert 0.31 < model.fc.weight.abs().max() <= 10**-0.5
    assert torch.all(model.fc.bias == 0)
    kept = resnet.build(
        num_classes=10, in_channels=3, image_size=8, blocks="1", width=4, zero_init_gamma=False
    )
    assert torch.all(kept.layer1[0].bn2.weight == 1)
    preact = preact_resnet.build(num_classes=10, in_channels=3, image_size=8, blocks="1", width=4)
    assert torch.all(preact.layer1[0].bn2.weight == 1)


def test_official_initialisation_of_vits() -> None:
    torch.manual_seed(1)
    model = vit.build(
        num_classes=10, in_channels=3, image_size=32, patch=8, width=64, depth=1, heads=4, mlp=96
    )
    layer = model.encoder.layers[0]
    std = (8 * 8 * 3) ** -0.5
    assert abs(model.conv_proj.weight.std() / std - 1) < 0.03
    assert model.conv_proj.weight.abs().max() <= 2 * std / vit.TRUNCATED_STD
    attention = (*layer.self_attention.in_proj_weight.chunk(3), layer.self_attention.out_proj.weight)
    for weight, fans in [
        *((w, 128) for w in attention),
        (layer.mlp[0].weight, 160),
        (layer.mlp[3].weight, 160),
    ]:
        assert 0.98 * (6 / fans) ** 0.5 < weight.abs().max() <= (6 / fans) ** 0.5
    assert all(
        torch.all(b == 0) for b in (layer.self_attention.in_proj_bias, layer.self_attention.out_proj.bias)
    )
    assert all(0.5e-6 < layer.mlp[i].bias.std() < 2e-6 for i in (0, 3))
    assert torch.all(model(torch.randn(2, 3, 32, 32)) == 0), "the head is zero"


@pytest.mark.parametrize("name", ["resnet_tiny", "vit_tiny"])
def test_initialisation_is_a_function_of_the_seed(name: str) -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        model = from_config(name, num_classes=10, in_channels=1, image_size=8)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


@pytest.mark.parametrize("name", ["resnet_tiny", "vit_tiny"])
def test_tiny_models_fit_a_batch(name: str) -> None:
    torch.manual_seed(0)
    model = from_config(name, num_classes=10, in_channels=1, image_size=8)
    x, y = torch.randn(32, 1, 8, 8), torch.arange(32) % 10
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.2


def test_attention_equals_the_parent_module() -> None:
    ours = vit.Attention(16, 4, batch_first=True)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


def test_positions_are_exact_in_every_precision() -> None:
    model = vit.build(num_classes=2, in_channels=1, image_size=8, patch=2, width=16, depth=1, heads=2, mlp=8)
    assert "encoder.pos_embedding" not in model.state_dict()
    assert torch.equal(model.double().encoder.pos_embedding, vit.sincos_positions(4, 16))
    tokens = vit.sincos_positions(4, 16)[0]
    # token 6 = row 1, column 2; quarter 16 / 4 = 4 frequencies 10000 ** (-i / 3)
    expected = [np.sin(2.0), np.cos(2.0), np.sin(1.0), np.cos(1.0)]
    np.testing.assert_allclose(tokens[6, ::4], expected, rtol=1e-14)
    np.testing.assert_allclose(tokens[6, 3], np.sin(2e-4), rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: resnet.build(image_size=4, **d), "at least 8x8 pixels, got 4x4"),
        (lambda d: resnet.build(image_size=28, stem="imagenet", **d), "at least 32x32"),
        (lambda d: preact_resnet.build(image_size=4, **d), "at least 8x8"),
        (lambda d: vit.build(image_size=8, **d), "at least 16x16"),
        (lambda d: vit.build(image_size=40, **d), "patch=16 does not divide the image size 40"),
        (lambda d: vit.build(image_size=32, width=10, heads=2, **d), "width=10 must be a multiple of 4"),
        (lambda d: resnet.build(image_size=32, block="bottelneck", **d), "did you mean 'bottleneck'"),
        (lambda d: resnet.build(image_size=32, blocks="2,x", **d), "blocks must be whole numbers"),
        (lambda d: preact_resnet.build(image_size=64, padding="valid", **d), "unknown padding 'valid'"),
    ],
)
def test_bad_input_is_named(make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make({"num_classes": 10, "in_channels": 3})


def test_a_variant_is_a_model_of_its_own() -> None:
    """Stem, padding and head are part of a cell's identity."""
    variants = [
        ["model=resnet18_cifar"],
        ["model=resnet18_cifar", "model.padding=symmetric"],
        ["model=resnet18_cifar", "model.stem=imagenet"],
        ["model=resnet18_was"],
        ["model=torchvision/resnet18", "model.stem=small"],
        ["model=torchvision/resnet18", "model.stem=native"],
        ["model=vgg16_was"],
        ["model=vgg16_was", "model.hidden=4096"],
    ]
    assert len({load([*variant, "dataset=cifar10"])[0].id for variant in variants}) == len(variants)
