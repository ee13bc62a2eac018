"""Networks of torchvision and timm by name."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.errors import UserError
from benchmarks.models.external import build
from weightaug.was import shadow_layers


@pytest.mark.parametrize(("name", "patch"), [("swin_t", 2), ("convnext_tiny", 1)])
def test_swin_and_convnext_train_on_8x8_digits(name: str, patch: int) -> None:
    """ConvNeXt gets 8x8 patches; Swin's stem is its only convolution and stays one larger than 1x1."""
    model = build(architecture=f"torchvision/{name}", num_classes=10, in_channels=1, image_size=8)
    loss = F.cross_entropy(model(torch.randn(4, 1, 8, 8)), torch.arange(4))
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    assert (first.in_channels, first.kernel_size, first.stride) == (1, (patch, patch), (patch, patch))
    assert shadow_layers(model)


def test_resnet_stem_follows_the_image() -> None:
    def stem(image_size: int, stem: str = "auto") -> tuple[object, ...]:
        model = build(
            architecture="torchvision/resnet18",
            num_classes=5,
            in_channels=3,
            image_size=image_size,
            stem=stem,
        )
        return model.conv1.kernel_size, model.conv1.stride, type(model.maxpool)

    small, native = ((3, 3), (1, 1), nn.Identity), ((7, 7), (2, 2), nn.MaxPool2d)
    assert stem(32) == small
    assert stem(96) == native
    assert stem(32, "native") == native
    assert stem(96, "small") == small


@pytest.mark.parametrize("name", ["densenet121", "googlenet", "mobilenet_v2", "squeezenet1_0"])
def test_other_networks_give_logits_in_training(name: str) -> None:
    model = build(architecture=f"torchvision/{name}", num_classes=7, in_channels=1, image_size=32).train()
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 7)


def test_vit_is_built_for_the_image_size() -> None:
    model = build(architecture="torchvision/vit_b_32", num_classes=3, in_channels=3, image_size=64)
    assert model.encoder.pos_embedding.shape[1] == 4 + 1


def test_building_does_not_depend_on_the_probe() -> None:
    """The check of the image size leaves buffers, training flag and random state alone."""
    torch.manual_seed(0)
    model = build(architecture="torchvision/mobilenet_v3_small", num_classes=3, in_channels=3, image_size=32)
    after = torch.rand(1)
    torch.manual_seed(0)
    build(architecture="torchvision/mobilenet_v3_small", num_classes=3, in_channels=3, image_size=64)
    assert torch.equal(after, torch.rand(1))
    assert all(module.training for module in model.modules())
    assert all(torch.all(m.running_mean == 0) for m in model.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"architecture": "torchvision/resnet19"}, "no model 'resnet19'; did you mean resnet18"),
        ({"architecture": "torchvison/resnet18"}, "did you mean 'torchvision'"),
        (
            {"architecture": "torchvision/alexnet", "image_size": 8},
            "cannot take 8x8 images; .* least .* is 64x64",
        ),
        (
            {"architecture": "torchvision/vit_b_16", "image_size": 8},
            "cannot take 8x8 images; .* least .* is 16x16",
        ),
        ({"architecture": "torchvision/mobilenet_v2", "stem": "small"}, "no small stem"),
        ({"architecture": "torchvision/resnet18", "stem": "tiny"}, "unknown stem 'tiny'"),
    ],
)
def test_bad_input_is_named(knobs: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(**{"num_classes": 10, "in_channels": 3, "image_size": 32, **knobs})


def test_timm_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # importing it fails, installed or not
    with pytest.raises(UserError, match="pip install timm"):
        build(architecture="timm/convnext_atto", num_classes=10, in_channels=1, image_size=8)


def test_timm_builds_where_it_is_installed() -> None:
    data = {"num_classes": 10, "in_channels": 1, "image_size": 8}
    if find_spec("timm") is None:
        with pytest.raises(UserError, match="pip install timm"):
            build(architecture="timm/convnext_atto", **data)
        return
    model = build(architecture="timm/convnext_atto", **data)
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(UserError, match=r"did you mean .*convnext_atto"):
        build(architecture="timm/convnext_ato", **data)


@pytest.mark.parametrize("name", ["nf_resnet26", "resnetv2_50x1_bit", "resnetblur18"])
def test_a_stem_that_does_more_than_convolve_and_pool_stays(name: str) -> None:
    """Standardised weights, padding before the pool, blur after it: none of it may be half replaced."""
    options = {"num_classes": 10, "in_channels": 3, "image_size": 32, "architecture": f"timm/{name}"}
    ours, native = build(**options), build(**options, stem="native")
    assert [(n, type(m)) for n, m in ours.named_modules()] == [
        (n, type(m)) for n, m in native.named_modules()
    ]
    with pytest.raises(UserError, match="has no small stem"):
        build(**options, stem="small")
