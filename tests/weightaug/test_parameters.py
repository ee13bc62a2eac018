"""Which parameters are kernels, scales or neither."""

from __future__ import annotations

import pytest
import torch
from small_networks import mixed
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from weightaug.parameters import parameter_kinds, select_parameters


def test_kinds_follow_the_owner() -> None:
    kinds = parameter_kinds(mixed())
    named = {kind: {name for name, k in kinds.items() if k == kind} for kind in ("kernel", "scale", "other")}
    assert named["kernel"] == {
        *(f"{layer}.weight" for layer in ("stem", "grouped", "patches", "head", "attention.out_proj")),
        "attention.in_proj_weight",
    }
    assert named["scale"] == {"norm.weight", "group_norm.weight", "ahead.weight"}
    assert {"slope.weight", "positions", "class_token", "layer_scale", "head.bias"} < named["other"]


def test_names_do_not_matter() -> None:
    class Linear(nn.Linear):
        pass

    model = nn.ModuleDict({"bias": Linear(2, 2), "scale": nn.Embedding(2, 2), "bn": nn.Linear(2, 2)})
    assert parameter_kinds(model) == {
        "bias.weight": "kernel",
        "bias.bias": "other",
        "scale.weight": "other",
        "bn.weight": "kernel",
        "bn.bias": "other",
    }
    separate = nn.MultiheadAttention(4, 2, kdim=3, vdim=2, add_bias_kv=True)
    kernels = {name for name, kind in parameter_kinds(separate).items() if kind == "kernel"}
    assert kernels == {"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"}
    assert set(parameter_kinds(weight_norm(nn.Linear(2, 2), dim=0)).values()) == {"other"}


@pytest.mark.parametrize("first", [0, 1])
def test_a_shared_parameter_is_a_kernel_if_any_owner_says_so(first: int) -> None:
    layers = [nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)]
    layers[1].weight = layers[0].weight
    model = nn.Sequential(layers[first], layers[1 - first])
    assert parameter_kinds(model) == {"0.weight": "kernel"}


def test_selection() -> None:
    model = mixed()
    assert set(select_parameters(model, "all")) == {name for name, _ in model.named_parameters()}
    assert set(select_parameters(model, lambda name, p: p.dim() == 4)) == {
        "stem.weight",
        "grouped.weight",
        "patches.weight",
    }
    with pytest.raises(
        ValueError, match="unknown group of parameters 'kernel'; use kernels, kernels_and_scales"
    ):
        select_parameters(model, "kernel")
    with pytest.raises(ValueError, match="no trainable parameter among 'kernels'"):
        select_parameters(nn.BatchNorm1d(3), "kernels")
    with pytest.raises(ValueError, match="unfreeze one"):
        select_parameters(nn.Linear(3, 3).requires_grad_(False), "all")
    assert torch.is_tensor(select_parameters(nn.BatchNorm1d(3), "kernels_and_scales")["weight"])
