"""timm's networks, unchanged, with stacked weight copies."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from small_networks import gradients
from stacked_copies import assert_stacked_equals_loop
from torch import nn

from baselines import SAM, SGD
from weightaug import DAMP
from weightaug.parameters import parameter_kinds

STAGES = {"depths": (1, 1, 1, 1), "dims": (4, 8, 8, 8)}
TOKENS = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet10t": {"channels": (4, 8, 8, 8), "stem_width": 4},
    "convnext_atto": STAGES,
    "convnextv2_atto": STAGES,
    "vit_tiny_patch16_224": {**TOKENS, "init_values": 0.1},
    "beit_base_patch16_224": TOKENS,
    "swin_tiny_patch4_window7_224": {
        "img_size": 32, "window_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (2, 2),
        "drop_path_rate": 0.0,
    },
    "nf_resnet26": {"depths": (1, 1, 1, 1), "channels": (8, 8, 8, 8), "stem_chs": 8},
}  # fmt: skip
each = pytest.mark.parametrize("name", NETWORKS)


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=3, **NETWORKS[name]).double()


def batch(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return x.double(), torch.arange(count) % 3


@each
def test_stacked_equals_loop(name: str) -> None:
    """In evaluation mode, for stochastic depth draws differently in one pass and in several."""
    assert_stacked_equals_loop(network(name).eval(), 2, batch(3)[0])


@each
@pytest.mark.parametrize("method", [DAMP, SAM])
def test_without_perturbation_is_sgd_up_to_rounding(name: str, method: Any) -> None:
    """In training, BatchNorm synchronised; the networks have no randomness of their own."""
    plain = network(name)
    model = copy.deepcopy(plain)
    x, y = batch(4)
    ours = method(model, sub_batches=2, **{"sigma" if method is DAMP else "rho": 0.0})
    loss, expected = (m.backward(F.cross_entropy, x, y) for m in (ours, SGD(plain)))
    assert ours.copies.stacked
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(model), gradients(plain), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(dict(model.named_buffers()), dict(plain.named_buffers()))


def test_timms_own_normalisation_layers_have_scales() -> None:
    kinds = parameter_kinds(timm.create_model("test_vit4"))
    assert kinds["blocks.0.norm1.weight"] == "scale"
    assert kinds["blocks.0.ls1.gamma"] == "other"
