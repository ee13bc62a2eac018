"""Which parameters are kernels, which are scales, and which are neither.

The papers' codes decide by a parameter's name ("kernel", "scale"). PyTorch calls all of them "weight", so the
type of the module that owns the parameter decides here.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

ParameterFilter = Callable[[str, nn.Parameter], bool]
"""Maps (name, parameter) to whether the parameter is meant."""

KERNEL_OWNERS = (_ConvNd, nn.Linear, nn.Bilinear, nn.MultiheadAttention)
SCALE_OWNERS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
GROUPS = {
    "kernels": ("kernel",),
    "kernels_and_scales": ("kernel", "scale"),
    "all": ("kernel", "scale", "other"),
}


def parameter_kinds(model: nn.Module) -> dict[str, str]:
    """Map the name of every parameter to ``"kernel"``, ``"scale"`` or ``"other"``.

    kernel  weights of convolutions and linear layers; the input and output projections of attention
    scale   weights of normalisation layers, torch's and those whose class has Norm in its name
    other   biases, shifts, embeddings, bare parameters (class token, position embedding, layer scale)

    A parameter that several modules share is listed once, under its first name, and is a kernel or a scale if
    any of its owners says so.
    """
    kinds: dict[int, str] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            kind = _kind(module, name)
            if kind != "other" or id(parameter) not in kinds:
                kinds[id(parameter)] = kind
    return {name: kinds[id(parameter)] for name, parameter in model.named_parameters()}


def _kind(owner: nn.Module, name: str) -> str:
    if isinstance(owner, KERNEL_OWNERS) and name.endswith("weight"):
        return "kernel"
    if name == "weight" and (isinstance(owner, SCALE_OWNERS) or "norm" in type(owner).__name__.lower()):
        return "scale"
    return "other"


def select_parameters(model: nn.Module, which: str | ParameterFilter) -> dict[str, nn.Parameter]:
    """The parameters of one of the groups ``kernels``, ``kernels_and_scales``, ``all``, or of a filter.

    Raises:
        ValueError: the group is unknown, or nothing that can be trained is in it.
    """
    if callable(which):
        chosen = {name: p for name, p in model.named_parameters() if which(name, p)}
    elif which in GROUPS:
        kinds = parameter_kinds(model)
        chosen = {name: p for name, p in model.named_parameters() if kinds[name] in GROUPS[which]}
    else:
        raise ValueError(f"unknown group of parameters {which!r}; use {', '.join(GROUPS)} or a function")
    if not any(p.requires_grad for p in chosen.values()):
        raise ValueError(
            f"the model has no trainable parameter among {which!r}: unfreeze one, or choose another group"
        )
    return chosen
