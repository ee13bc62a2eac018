"""What a network is, counted without running it: on torch's meta device tensors have shapes and no content."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.planning.kinds import Kind

BATCH = 2
"""The smallest that BatchNorm takes; what is counted is proportional to it."""


@dataclass(frozen=True)
class Network:
    """Numbers of a network for one image size."""

    parameters: int
    buffer_bytes: int
    flops: int  # of one forward pass of one image, 2 for a multiply-add
    activation_bytes: int  # that a forward pass of one image in training keeps for the backward one
    family: str  # "attention" for networks with LayerNorm and no BatchNorm, else "convolutions"
    batch_norm: bool  # whether BatchNorm couples the images of a batch


_counted: dict[str, Network] = {}


def network_of(kind: Kind) -> Network:
    """Counted once for each model, number of classes, image size and precision."""
    model, precision = kind.cell.model, kind.cell.recipe.precision
    key = json.dumps([model.name, model.arguments, kind.shape, kind.classes, precision == "bf16"])
    if key not in _counted:
        _counted[key] = count_network(empty_model(kind), kind.shape, precision)
    return _counted[key]


def empty_model(kind: Kind) -> nn.Module:
    """The kind's model on the meta device, built anew."""
    channels, size, _ = kind.shape

    def build() -> nn.Module:
        model = kind.cell.model.build(num_classes=kind.classes, in_channels=channels, image_size=size)
        assert isinstance(model, nn.Module)
        return model

    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"), _NothingDrawn():
                return build()
        except Exception:  # a library's model that looks at its own weights while it is built
            return build().to("meta")


def count_network(model: nn.Module, shape: tuple[int, int, int], precision: str = "float32") -> Network:
    """Count ``model``, on the meta device, in training on images of ``shape`` [C, H, W].

    Activations are the tensors that autograd saves, each storage once, parameters and buffers left out. bf16 is
    counted as if all of the network computed in it; autocast keeps a little more.
    """
    own = [*model.parameters(), *model.buffers()]
    parameters = sum(p.numel() for p in model.parameters())
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    x = torch.empty(BATCH, *shape, device="meta")
    if precision == "bf16":
        model, x = model.bfloat16(), x.bfloat16()
        own = [*model.parameters(), *model.buffers()]
    known = {t.untyped_storage()._cdata for t in own}
    saved: dict[int, torch.UntypedStorage] = {}  # holding them keeps their addresses from being used again

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            saved[storage._cdata] = storage
        return tensor

    model.train()
    with (
        saved_tensors_hooks(pack, lambda tensor: tensor),
        FlopCounterMode(display=False) as counter,
        _FusedAttention(),
    ):
        model(x)
    activations = sum(storage.nbytes() for storage in saved.values())
    normalised = any(isinstance(module, _BatchNorm) for module in model.modules())
    attention = not normalised and any(isinstance(module, nn.LayerNorm) for module in model.modules())
    return Network(
        parameters,
        buffers,
        counter.get_total_flops() // BATCH,
        activations // BATCH,
        "attention" if attention else "convolutions",
        normalised,
    )


RANDOM = {name for name in dir(nn.init) if name.endswith(("uniform_", "normal_"))} | {"normal_", "uniform_"}


class _NothingDrawn(TorchFunctionMode):
    """Random weights are not drawn, as there is no content; torch would take seconds for that."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in RANDOM:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


class _FusedAttention(TorchFunctionMode):
    """Attention as CPUs and GPUs run it, without keeping its matrices; on the meta device torch would keep them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and [t.dim() for t in args] == [4, 4, 4]:
            return torch.ops.aten._scaled_dot_product_efficient_attention(*args, None, True)[0]
        return func(*args, **kwargs)
