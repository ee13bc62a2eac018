"""The WAS authors' networks: layers, parameters, multiply-adds, their outputs and their gradients."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import deviation, draw_of, golden_names, load_golden, tensor
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.errors import UserError
from benchmarks.models import (
    resnet,
    was_efficientnet_lite,
    was_googlenet,
    was_mobilenetv2,
    was_resnet50,
    was_vgg,
)
from weightaug import WAS

RESNET: dict[str, Any] = {
    "in_channels": 3,
    "image_size": 32,
    "padding": "symmetric",
    "zero_init_gamma": False,
    "init": "torch",
    "shortcut": 3,
    "shadow_layers": r"layer\d\.\d+\.conv[12]",
}
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "vgg16_1d": lambda **knobs: was_vgg.build(hidden=4096, **knobs),
    "vgg16_2d": was_vgg.build,
    "resnet18": lambda **knobs: resnet.build(blocks="2,2,2,2", **RESNET, **knobs),
    "resnet34": lambda **knobs: resnet.build(blocks="3,4,6,3", **RESNET, **knobs),
    "resnet50": was_resnet50.build,
    "googlenet": was_googlenet.build,
    "mobilenetv2": was_mobilenetv2.build,
    "efficientnet_lite0": was_efficientnet_lite.build,
}


def listed(name: str, classes: int) -> dict[str, Any]:
    """What the golden files say of a network: its counts and, in execution order, its layers."""
    file = "was_resnet50" if name == "resnet50" else "was_networks"
    nets = load_golden(file)[1]["nets"]
    return {**nets[f"{name}_{classes}"], "layers": nets[f"{name}_10"]["layers"]}


def executed(model: nn.Module, x: Tensor) -> list[tuple[nn.Module, Tensor]]:
    """Convolutions, BatchNorms and linear layers in the order of their execution, with their outputs."""
    calls: list[tuple[nn.Module, Tensor]] = []
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    handles = [
        module.register_forward_hook(lambda module, _, output: calls.append((module, output)))
        for module in model.modules()
        if isinstance(module, kinds)
    ]
    with torch.no_grad():
        model.eval()(x)
    for handle in handles:
        handle.remove()
    return calls


def build(name: str, **knobs: Any) -> nn.Module:
    """In float64 and without spending time on initial weights."""
    with torch.device("meta"):
        model = NETWORKS[name](**knobs)
    model = model.double().to_empty(device="cpu")
    for tensor_ in [*model.parameters(), *model.buffers()]:
        tensor_.data.zero_()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_multiply_adds(name: str, classes: int) -> None:
    expected = listed(name, classes)
    with torch.device("meta"):
        model = NETWORKS[name](num_classes=classes)
        calls = executed(model, torch.zeros(1, 3, 32, 32))
    macs = {id(m): o.numel() * m.weight[0].numel() for m, o in calls if isinstance(m, nn.Conv2d)}
    method_layers = WAS(model, coefficient="none").layers.values()
    assert (
        sum(p.numel() for p in model.parameters()) == expected["params_without_K"] - expected["unused_params"]
    )
    assert sum(macs.values()) == expected["conv_macs"]
    assert sum(macs[id(layer)] for layer in method_layers) == expected["shadow_conv_macs"]
    assert len(method_layers) == expected["shadow_convs"]
    assert sum(m.weight.numel() for m, _ in calls if isinstance(m, nn.Linear)) == expected["linear_macs"]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_is_the_authors(name: str) -> None:
    with torch.device("meta"):
        model = NETWORKS[name](num_classes=10)
        calls = executed(model, torch.zeros(1, 3, 32, 32))
    shadow = {id(layer) for layer in WAS(model, coefficient="none").layers.values()}
    layers = listed(name, 10)["layers"]
    assert len(calls) == len(layers)
    for (module, output), layer in zip(calls, layers, strict=True):
        side = output.shape[-1]
        if isinstance(module, nn.BatchNorm2d):
            ours = {"features": module.num_features, "eps": module.eps, "momentum": module.momentum}
            assert ours | {"hw": side} == {key: layer[key] for key in (*ours, "hw")}
            continue
        assert (list(module.weight.shape), module.bias is not None) == (layer["weight"], layer["bias"])
        if isinstance(module, nn.Conv2d):
            form = (module.stride, module.padding, module.dilation, module.groups, side)
            stride, padding = (layer["stride"],) * 2, (layer["padding"],) * 2
            assert form == (stride, padding, (1, 1), layer["groups"], layer["out_hw"])
            assert output[0].numel() * module.weight[0].numel() == layer["macs"]
            assert (id(module) in shadow) == layer["shadow"]


@pytest.mark.parametrize("classes", [10, 100])
def test_plain_vgg_has_the_large_head(classes: int) -> None:
    """The authors' baseline vgg.py: 4096 hidden units, and neither K nor the unused BatchNorm."""
    published = load_golden("was_networks")[0][f"vgg16_plain_baseline_{classes}_params"]
    with torch.device("meta"):
        model = was_vgg.build(num_classes=classes, hidden=4096)
    assert sum(p.numel() for p in model.parameters()) == published[0]


def write_weights(module: nn.Module, number: int) -> None:
    """The rule of the golden files for the weights of the layer executed as ``number``-th."""
    random = np.random.default_rng([100, number])
    weight = random.standard_normal(module.weight.shape)
    fan_in = module.weight[0].numel()
    weight = 1 + 0.2 * weight if isinstance(module, nn.BatchNorm2d) else np.sqrt(2 / fan_in) * weight
    module.weight.data.copy_(torch.from_numpy(weight))
    if module.bias is not None:
        module.bias.data.copy_(torch.from_numpy(0.1 * random.standard_normal(module.bias.shape)))


@pytest.mark.parametrize("name", NETWORKS)
def test_full_size_outputs(name: str) -> None:
    x = tensor(load_golden("was_fullsize_logits")[0]["x"])
    arrays, _ = load_golden("was_resnet50" if name == "resnet50" else "was_fullsize_logits")
    layers = listed(name, 10)["layers"]
    model = build(name, num_classes=10)
    modules = [module for module, _ in executed(model, x[:1])]
    assert len(modules) == len(layers)
    for number, module in enumerate(modules):
        write_weights(module, number)
    method = WAS(model)
    shadow = [module for module, layer in zip(modules, layers, strict=True) if layer.get("shadow")]
    assert [*map(id, shadow)] == [*map(id, method.layers.values())]
    method.draws = dict(zip(method.layers, map(draw_of, arrays[f"{name}_draws"]), strict=True))
    assert method.coefficients is not None
    method.coefficients.data.copy_(tensor(arrays[f"{name}_K"]))
    model.train()
    for mode in method.modes:
        assert deviation(method.predict(x, mode), arrays[f"{name}_logits_{mode}"]) < 1e-9


def our_name(name: str) -> str:
    """The official module name in our words."""
    name = re.sub(r"^conv\.(?=\d)", "features.", name)
    name = re.sub(r"^fc\.(?=\d)", "classifier.", name)
    return re.sub(r"^(conv|bn)\.(?=[a-z])", r"\g<1>1.", name).replace("shortcut", "downsample")


def coefficients(info: dict[str, Any], arrays: Mapping[str, np.ndarray], prefix: str) -> np.ndarray:
    """K of each shadow layer, from ``layer1.0.param[0]`` and the like."""
    parts = [re.fullmatch(r"(.*)\[(\d+)\]", place).groups() for place in info["K_of_shadow_layers"]]
    return np.array([arrays[f"{prefix}/{name}"][int(index)] for name, index in parts])


def tiny(arrays: Mapping[str, np.ndarray], name: str) -> nn.Module:
    """The network at the width of the golden file, with its state."""
    state = {key.removeprefix("state/"): tensor(arrays[key]) for key in arrays if key.startswith("state/")}
    if "vgg" in name:
        layout = "4,4,M,8,8,M,16,16,16,M,32,32,32,M,32,32,32,M"
        model = was_vgg.build(num_classes=10, layout=layout, hidden=32, dropout=0.0).double()
    else:
        width = len(state["conv.weight"])
        model = NETWORKS[name.removeprefix("was_tiny_")](num_classes=10, width=width).double()
    ours = {our_name(key): value for key, value in state.items() if not key.endswith("param")}
    missing, unexpected = model.load_state_dict(ours, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    return model


@pytest.mark.parametrize("name", golden_names("was_tiny_vgg16_2d", "was_tiny_resnet18", "was_tiny_resnet34"))
def test_tiny_network(name: str) -> None:
    arrays, info = load_golden(name)
    model = tiny(arrays, name)
    method = WAS(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert method.coefficients is not None
    method.coefficients.data.copy_(torch.from_numpy(coefficients(info, arrays, "state")))
    x, y = tensor(arrays["x"]), tensor(arrays["y"]).long()

    def gradients(prefix: str) -> None:
        names = [key.removeprefix(f"{prefix}/") for key in arrays if key.startswith(f"{prefix}/")]
        scale = max(np.abs(arrays[f"{prefix}/{key}"]).max() for key in names)
        parameters = dict(model.named_parameters())
        compared = 0
        for key in names:
            if not key.endswith("param"):
                assert deviation(parameters[our_name(key)].grad, arrays[f"{prefix}/{key}"], scale) < 1e-9
                compared += 1
        assert compared > 0

    for number in (0, 1):
        model.load_state_dict(before)
        model.train()
        model.zero_grad()
        method.coefficients.grad = None
        method.draws = dict(zip(method.layers, map(draw_of, arrays[f"draws{number}"]), strict=True))
        loss = method.backward(F.cross_entropy, x, y)
        assert deviation(loss, arrays[f"loss_shadow{number}"]) < 1e-9
        gradients(f"grad{number}")
        expected = coefficients(info, arrays, f"grad{number}")
        assert deviation(method.coefficients.grad, expected) < 1e-9
        if number == 0:
            buffers = dict(model.named_buffers())
            for key in (key for key in arrays if key.startswith("buffer_after_shadow0/")):
                buffer = buffers[our_name(key.removeprefix("buffer_after_shadow0/"))]
                assert deviation(buffer, arrays[key]) < 1e-9
        model.load_state_dict(before)
        assert deviation(method.predict(x, "shadow"), arrays[f"logits_shadow{number}"]) < 1e-9
        model.load_state_dict(before)
        model.eval()
        assert deviation(method.predict(x, "shadow"), arrays[f"logits_shadow_eval{number}"]) < 1e-9
    assert deviation(method.predict(x), arrays["logits_plain_eval"]) < 1e-9
    model.train()
    assert deviation(method.predict(x), arrays["logits_plain"]) < 1e-9
    model.load_state_dict(before)
    model.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    assert deviation(loss, arrays["loss_plain"]) < 1e-9
    gradients("grad_plain")


def test_drop_connect_drops_whole_examples() -> None:
    from benchmarks.models.inverted_residual import DropConnect

    x = torch.ones(4000, 2, 3, 3)
    y = DropConnect(0.25)(x)
    kept = y.flatten(1)[:, 0] > 0
    assert torch.equal(y, (kept / 0.75)[:, None, None, None].expand_as(y))
    assert abs(kept.float().mean().item() - 0.75) < 0.03
    assert torch.equal(DropConnect(0.25).eval()(x), x)


@pytest.mark.parametrize("name", NETWORKS)
def test_narrow_networks_train_in_float32(name: str) -> None:
    knobs = (
        {"layout": "4,4,M,8,M,8,M,8,M,8,M"} if "vgg" in name else {"width": 4 if "resnet" in name else 0.1}
    )
    shadow = {"shadow_layers": r"features\.3"} if "vgg" in name else {}
    model = NETWORKS[name](num_classes=3, **knobs, **shadow)
    x, y = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    assert torch.isfinite(WAS(model).backward(F.cross_entropy, x, y))
    assert all(p.grad is not None for p in model.parameters())


def test_bad_knobs() -> None:
    with pytest.raises(UserError, match="layout must be"):
        was_vgg.build(num_classes=10, layout="64,x")
    for module in (was_vgg, was_googlenet, was_mobilenetv2, was_efficientnet_lite, was_resnet50):
        with pytest.raises(UserError, match="needs images of at least"):
            module.build(num_classes=10, image_size=2)
