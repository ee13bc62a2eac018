"""Swin and ConvNeXt under every registered method, by the command that a person types."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from command_line import CommandLine
from torch.nn import functional as F

from benchmarks.config import load
from benchmarks.data.batches import epoch_batches
from benchmarks.registry import entries
from benchmarks.training.trainer import build

EPOCH = ["recipe=vit_smoke", "recipe.epochs=1", "recipe.warmup_epochs=0", "recipe.batch_size=256"]
QUICK = ["evaluation.corruptions=false", "wandb=disabled", "device=cpu", "threads=1"]
NARROW = {  # the named networks with fewer and narrower stages
    "timm/swin_tiny_patch4_window7_224": "{embed_dim:16,depths:[1,1],num_heads:[1,2],patch_size:2}",
    "timm/convnext_atto": "{dims:[8,8,16,16],depths:[1,1,1,1]}",
}
if not find_spec("timm"):
    NARROW = {}


@pytest.mark.parametrize("method", sorted(entries("method")))
@pytest.mark.parametrize("model", NARROW)
def test_one_epoch_of_every_method(weightaug: CommandLine, tmp_path: Path, model: str, method: str) -> None:
    settings = [f"model={model}", f"model.options={NARROW[model]}", f"method={method}"]
    done = weightaug("run", *settings, *EPOCH, *QUICK)
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / done.stdout.splitlines()[-1].removeprefix("card: ")).read_text())
    assert card["status"] == "finished"
    assert card["cell"]["model"]["name"] == model
    assert card["curve"][0]["step"] == 1257 // 256
    assert card["metrics"]["plain"]["clean"]["error"] < 95


@pytest.mark.parametrize("method", ["damp", "was"])
@pytest.mark.parametrize("model", ["torchvision/swin_t", "torchvision/convnext_tiny"])
def test_a_step_at_full_size(model: str, method: str) -> None:
    copies = [] if method == "was" else ["method.sub_batches=2"]
    cell = load([f"model={model}", f"method={method}", *copies, "recipe.batch_size=2"])[0]
    source = cell.dataset.build()
    data = source.load(Path())
    network, trained = build(cell, source, "cpu", data)
    loss = trained.backward(F.cross_entropy, *next(epoch_batches(data, cell.recipe, 0, 0)))
    gradients = [p.grad for p in network.parameters()]
    assert loss.isfinite()
    assert all(g is not None and g.isfinite().all() for g in gradients)
