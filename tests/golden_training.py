"""Three training steps of a golden case, and the comparison of everything that the case recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from golden_files import deviation, load_golden
from torch import Tensor, nn

from benchmarks.models import preact_resnet, resnet, vit
from weightaug import Method, RandomSource
from weightaug.parameters import parameter_kinds

MethodMaker = Callable[[nn.Module, dict[str, Any], RandomSource], Method]
CASES = [
    *(f"asam_resnet_{pad}_sync_m4_eta0{eta}" for pad in ("same", "sym") for eta in ("", "1")),
    *(f"asam_resnet_sym_{kind}_eta0{eta}" for kind in ("m1", "nosync_m4") for eta in ("", "1")),
    "asam_resnet_sym_sync_m4_eta01_f32",
    "asam_resnet_sym_sync_m4_eta01_officialinit",
    "asam_vit_sgd_m4_eta01",
    *(f"damp_bottleneck_imnet_{pad}_sync_m2" for pad in ("same", "sym")),
    *(f"damp_preact_{pad}_sync_m4" for pad in ("same", "sym")),
    "damp_resnet18_sym_sync_m8",
    *(f"damp_resnet_{pad}_{sync}_m4" for pad in ("same", "sym") for sync in ("nosync", "sync")),
    "damp_resnet_sym_sync_m4_f32",
    "damp_resnet_sym_sync_m4_officialinit",
    "damp_vit_adamw_m4",
    "damp_vit_sgd_m4",
    *(f"sam_resnet_{kind}" for kind in ("same_m1", "sym_m1", "same_sync_m4", "sym_sync_m4", "sym_nosync_m4")),
    "sam_resnet_sym_sync_m4_f32",
    "sam_vit_adamw_m4",
    "sam_vit_sgd_m4",
]


def build_network(case: str) -> nn.Module:
    common = {"num_classes": 10, "in_channels": 3, "image_size": 16}
    padding = "same" if "_same_" in case else "symmetric"
    if "_vit_" in case:
        return vit.build(patch=4, width=16, depth=2, heads=2, mlp=32, **common)
    if "_preact_" in case:
        return preact_resnet.build(blocks="2,2,1", width=3, padding=padding, **common)
    if "_bottleneck_" in case:
        knobs = {"blocks": "1,1,1", "width": 3, "block": "bottleneck", "stem": "imagenet", "image_size": 32}
        return resnet.build(padding=padding, **{**common, **knobs})
    blocks, width = ("2,2,2,2", 2) if "_resnet18_" in case else ("1,1,1", 4)
    return resnet.build(blocks=blocks, width=width, padding=padding, **common)


class GoldenNoise(RandomSource):
    """The authors' draws in place of ours."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.arrays = arrays

    def normal(self, like: Mapping[str, Tensor], step: int, copies: Sequence[int]) -> dict[str, Tensor]:
        draws = {name: torch.from_numpy(self.arrays[f"noise{step + 1}/{name}"]) for name in like}
        return {name: draw[list(copies)].to(like[name]) for name, draw in draws.items()}


class Recorder:
    """Keeps every forward pass's weight copies, their gradients and the losses of the sub-batches."""

    def __init__(self, method: Any, sub_batches: int) -> None:
        self.passes: list[dict[str, Tensor]] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.losses: list[Tensor] = []
        self.sub_batches = sub_batches
        forward, trained = method.copies.forward, dict(method.model.named_parameters())

        def recorded(weights: dict[str, Tensor], *args: Any) -> Tensor:
            gradients: dict[str, Tensor] = {}
            if not self.passes:  # of the parameters without a perturbation too: their gradients per copy
                everything = {name: p.expand(sub_batches, *p.shape) for name, p in trained.items()}
                weights = {**everything, **weights}
            for name, weight in weights.items():
                weight.register_hook(lambda gradient, name=name: gradients.update({name: gradient}))
            self.passes.append(weights)
            self.gradients.append(gradients)
            return forward(weights, *args)

        method.copies.forward = recorded

    def criterion(self, logits: Tensor, y: Tensor) -> Tensor:
        losses = F.cross_entropy(logits, y, reduction="none")
        self.losses.append(losses.detach().view(self.sub_batches, -1).mean(1))
        return losses.mean()

    def per_copy(self, number: int) -> dict[str, Tensor]:
        """The gradients of the sum of the sub-batches' losses, in pass ``number``."""
        return {name: gradient * self.sub_batches for name, gradient in self.gradients[number].items()}


def clip_by_global_norm(parameters: Sequence[Tensor], limit: float) -> None:
    """As optax clips; torch's clip_grad_norm_ adds 1e-6 to the norm, which float64 vectors show."""
    norm = torch.stack([p.grad.norm() for p in parameters]).norm()
    for p in parameters:
        p.grad.mul_((limit / norm).clamp(max=1))


def build_optimizer(model: nn.Module, settings: dict[str, Any]) -> torch.optim.Optimizer:
    options = settings["optimizer"]
    kernels = {name for name, kind in parameter_kinds(model).items() if kind == "kernel"}
    everything = settings["weight_decay_on"] == "all parameters"
    groups = [
        {"params": [p], "weight_decay": options["weight_decay"] if everything or name in kernels else 0.0}
        for name, p in model.named_parameters()
    ]
    if "betas" in options:
        return torch.optim.AdamW(groups, lr=options["lr"], betas=options["betas"], eps=options["eps"])
    return torch.optim.SGD(groups, lr=options["lr"], momentum=options["momentum"], nesterov=True)


def set_up(case: str, make_method: MethodMaker) -> tuple[Any, Mapping[str, np.ndarray], dict[str, Any]]:
    """The method of a case on its network, at the case's start."""
    arrays, description = load_golden(case)
    settings = description["settings"]
    model = build_network(case).to(torch.float32 if case.endswith("_f32") else torch.float64).train()
    start = {
        name.partition("/")[2]: torch.from_numpy(array)
        for name, array in arrays.items()
        if name.startswith(("param/", "buffer/"))
    }
    counters = {name: value for name, value in model.state_dict().items() if "num_batches" in name}
    model.load_state_dict({**counters, **start})
    return make_method(model, settings, GoldenNoise(arrays)), arrays, settings


def check_case(case: str, make_method: MethodMaker) -> None:
    """Run three steps and compare losses, gradients per copy and averaged, weights, statistics and outputs."""
    method, arrays, settings = set_up(case, make_method)
    model, single = method.model, case.endswith("_f32")
    tolerance, after_three = (1e-4, 1e-4) if single else (1e-9, 1e-8)
    recorder = Recorder(method, settings["M"])
    optimizer = build_optimizer(model, settings)
    parameters = dict(model.named_parameters())
    for step in (1, 2, 3):
        x = torch.from_numpy(arrays["x"][step - 1]).to(next(model.parameters()))
        loss = method.backward(recorder.criterion, x, torch.from_numpy(arrays["y"][step - 1]))
        assert deviation(loss, arrays["loss"][step - 1]) < after_three
        if step == 1:
            if "loss_sub1" in arrays:
                assert deviation(recorder.losses[0], arrays["loss_sub1"]) < tolerance
            check_gradients({name: p.grad for name, p in parameters.items()}, arrays, "grad1", tolerance)
            check_gradients(recorder.per_copy(-1), arrays, "grad_sub1", tolerance)
            check_gradients(recorder.per_copy(0), arrays, "ascent_grad_sub1", tolerance)
        if "max_norm" in settings["optimizer"]:
            clip_by_global_norm(list(parameters.values()), settings["optimizer"]["max_norm"])
        optimizer.step()
        optimizer.zero_grad()
        if step != 2:
            check_state(model, arrays, step, tolerance if step == 1 else after_three)
    model.eval()
    logits = model(torch.from_numpy(arrays["x"][0]).to(x))
    assert deviation(logits, arrays["eval_logits_after3"]) < after_three


def check_gradients(
    actual: Mapping[str, Tensor], arrays: Mapping[str, np.ndarray], kind: str, tolerance: float
) -> None:
    """On the scale of the whole gradient: some entries are zero up to rounding."""
    expected = {name: array for key, array in arrays.items() if (name := key.removeprefix(f"{kind}/")) != key}
    if not expected:
        return  # this case did not record it
    scale = max(np.abs(array).max() for array in expected.values())
    assert set(actual) == set(expected)
    for name, gradient in actual.items():
        assert deviation(gradient, expected[name], scale) < tolerance, f"{kind}/{name}"


def check_state(model: nn.Module, arrays: Mapping[str, np.ndarray], step: int, tolerance: float) -> None:
    for name, p in model.named_parameters():
        assert deviation(p, arrays[f"param_after{step}/{name}"]) < tolerance, name
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            expected = arrays[f"buffer_after{step}/{name}"]
            expected = expected[0] if expected.ndim > buffer.dim() else expected
            assert deviation(buffer, expected) < tolerance, name
