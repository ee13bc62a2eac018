"""Swin and ConvNeXt under every registered method, by the command that a person types."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from command_line import CommandLine
from torch import nn
from torch.nn import functional as F
from torchvision.models import ConvNeXt, SwinTransformer
from torchvision.models.convnext import CNBlockConfig

from benchmarks.config import load
from benchmarks.data.batches import epoch_batches
from benchmarks.registry import entries

EPOCH = ["recipe=vit_smoke", "recipe.epochs=1", "recipe.warmup_epochs=0", "recipe.batch_size=256"]
QUICK = ["evaluation.corruptions=false", "wandb=disabled", "device=cpu", "threads=1"]
NARROW = {  # the named networks with fewer and narrower stages
    "timm/swin_tiny_patch4_window7_224": "{embed_dim:8,depths:[1,1],num_heads:[1,2],patch_size:2}",
    "timm/convnext_atto": "{dims:[4,4,8,8],depths:[1,1,1,1]}",
}
if not find_spec("timm"):
    NARROW = {}


def two_copies(method: str) -> list[str]:
    """The method's settings; eight weight copies one after the other, where they do not stack, take long."""
    chosen = [f"method={method}"]
    several = "sub_batches" in load(chosen)[0].method.arguments
    return [*chosen, "method.sub_batches=2"] if several else chosen


@pytest.mark.parametrize("method", sorted(entries("method")))
@pytest.mark.parametrize("model", NARROW)
def test_one_epoch_of_every_method(weightaug: CommandLine, tmp_path: Path, model: str, method: str) -> None:
    settings = [f"model={model}", f"model.options={NARROW[model]}", *two_copies(method)]
    done = weightaug("run", *settings, *EPOCH, *QUICK)
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / done.stdout.splitlines()[-1].removeprefix("card: ")).read_text())
    assert card["status"] == "finished"
    assert card["cell"]["model"]["name"] == model
    assert card["curve"][0]["step"] == 1257 // 256
    assert card["metrics"]["plain"]["clean"]["error"] < 95


def narrow_swin() -> nn.Module:
    model = SwinTransformer([2, 2], 8, depths=[1, 1], num_heads=[1, 2], window_size=[2, 2], num_classes=10)
    model.features[0][0] = nn.Conv2d(1, 8, 2, 2)
    return model


def narrow_convnext() -> nn.Module:
    model = ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=10)
    model.features[0][0] = nn.Conv2d(1, 8, 1)
    return model


@pytest.mark.parametrize("method", sorted(entries("method")))
@pytest.mark.parametrize("make", [narrow_swin, narrow_convnext])
def test_steps_on_torchvisions(make: Callable[[], nn.Module], method: str) -> None:
    """Their full-size networks, which have no narrow variant by name, take minutes for an epoch."""
    cell = load([*two_copies(method), "recipe.batch_size=16"])[0]
    source = cell.dataset.build()
    data = source.load(Path())
    torch.manual_seed(0)
    model = make()
    trained = cell.method.build({"source": source, "data": data}, model=model, seed=0)
    optimizer = torch.optim.AdamW([*model.parameters(), *trained.parameters()], lr=1e-3)
    before = [p.detach().clone() for p in model.parameters()]
    for x, y in itertools.islice(epoch_batches(data, cell.recipe, 0, 0), 3):
        optimizer.zero_grad()
        assert trained.backward(F.cross_entropy, x, y).isfinite()
        optimizer.step()
    assert all(p.isfinite().all() and not p.equal(b) for p, b in zip(model.parameters(), before, strict=True))
    assert trained.predict(x, trained.modes[-1]).shape == (16, 10)
