"""What a cell is does not depend on how many processes train it, nor on how many parts they run their batches in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from command_line import ROOT, environment
from PIL import Image
from shared_training import outcome, trainer
from torch import Tensor, nn

from benchmarks.config import load
from benchmarks.errors import UserError
from benchmarks.launch.requirements import source_of
from benchmarks.registry import entries
from benchmarks.training.processes import Processes
from benchmarks.training.sharing import Shareable, Sharing
from benchmarks.training.trainer import build
from weightaug import Part
from weightaug.synchronised import batch_norm

ON_BATCH_NORM = {name: [f"method={name}"] for name in entries("method")} | {
    "separate_damp": ["method=damp", "method.batch_norm=separate"],
    "separate_sam": ["method=sam", "method.batch_norm=separate"],
}
ON_VIT = {f"vit_{name}": ["vit", f"method={name}"] for name in entries("method")}
IN_PARTS = {f"{name}_in_parts": ON_VIT[name] for name in ("vit_sgd", "vit_dropout", "vit_was_sam")}


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A cell on streamed images."""
    folder = tmp_path_factory.mktemp("streamed")
    for number in range(32):
        path = folder / "images" / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (22, 26, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    settings = ["dataset=imagenet", "recipe.min_crop_area=0.2", "recipe.mixup_lambda=0.8", "method=damp"]
    return [*settings, "recipe.drop_last=true", "recipe.crop_padding=0", f"images={folder}"]


@pytest.fixture(scope="module")
def pair(streamed: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What came of all cells in two processes, which are started once."""
    folder = tmp_path_factory.mktemp("pair")
    trainer(streamed)  # fills the cache
    cells = {name: (overrides, 1) for name, overrides in (ON_BATCH_NORM | ON_VIT).items()}
    cells |= {name: (overrides, 2) for name, overrides in IN_PARTS.items()}
    (folder / "cells.json").write_text(json.dumps(cells | {"streamed": (streamed, 1)}))
    program = str(ROOT / "tests" / "shared_training.py")
    variables = environment(f"{ROOT}:{ROOT / 'tests'}") | {
        "OMP_NUM_THREADS": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    running = [
        subprocess.Popen([sys.executable, program, str(folder), str(rank)], env=variables) for rank in (0, 1)
    ]
    try:
        assert [process.wait(240) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    return folder


def same(ours: dict[str, Any], expected: dict[str, Any]) -> None:
    assert len(expected["losses"]) >= 2
    torch.testing.assert_close(
        torch.tensor(ours["losses"]), torch.tensor(expected["losses"]), rtol=1e-5, atol=1e-6
    )
    for value, other in zip(ours["weights"], expected["weights"], strict=True):
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-5)


def bits(ours: dict[str, Any], expected: dict[str, Any]) -> None:
    assert ours["curve"] == expected["curve"]
    assert all(torch.equal(a, b) for a, b in zip(ours["weights"], expected["weights"], strict=True))


@pytest.mark.parametrize("name", [*ON_BATCH_NORM, *ON_VIT, *IN_PARTS])
def test_two_processes_are_one(pair: Path, name: str) -> None:
    """Every method: same losses and weights after several steps, the last on a batch that does not divide."""
    first, second = (torch.load(pair / f"{name}.{rank}.pt") for rank in (0, 1))
    assert first["losses"] == second["losses"]
    same(first, outcome(trainer((ON_BATCH_NORM | ON_VIT | IN_PARTS)[name])))
    if not name.startswith("separate"):  # else the first has the statistics
        bits(first, second)


def test_each_process_reads_its_part_alone(pair: Path, streamed: list[str]) -> None:
    """Loader processes of the two bring the bytes that a single process cuts out by itself."""
    first, second = (torch.load(pair / f"streamed.{rank}.pt") for rank in (0, 1))
    one = outcome(trainer(streamed))
    same(first, one)
    assert len(first["read"]) == len(second["read"]) == 16
    assert sorted(first["read"] + second["read"]) == sorted(one["read"])
    assert len(set(one["read"])) == 32


@pytest.mark.parametrize("name", ["was_damp", "separate_sam"])
def test_continued_by_as_many_processes_or_by_others(pair: Path, name: str) -> None:
    whole, resumed = (torch.load(pair / f"{name}{of}.0.pt") for of in ("", ".resumed"))
    bits(resumed, whole)
    alone = outcome(trainer(ON_BATCH_NORM[name]), pair / f"{name}.middle.pt")
    assert len(alone["losses"]) == 1
    for ours, other in zip(alone["weights"], whole["weights"], strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "parts"),
    [*((name, 2) for name in ON_VIT), ("vit_damp", 8), ("separate_damp", 4), ("separate_sam", 2)],
)
def test_gradients_that_accumulate_are_those_of_the_whole_batch(name: str, parts: int) -> None:
    overrides = (ON_BATCH_NORM | ON_VIT)[name]
    same(outcome(trainer(overrides, accumulate=parts)), outcome(trainer(overrides)))


class Draws(nn.Module):
    """Draws random numbers in every way that is known for a part."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(x, 0.3) + F.dropout2d(x, 0.3, inplace=True) + F.alpha_dropout(x, 0.2)
        x = F.dropout3d(x.unsqueeze(1), 0.3).squeeze(1) + F.feature_alpha_dropout(x, 0.2)
        x = (
            x
            * torch.rand(len(x), 1, 1, 1)
            * torch.randn((len(x), 1, 1, 1))
            * torch.rand(size=(len(x), 1, 1, 1))
        )
        x = x + torch.rand_like(x) + torch.randn_like(x) + torch.bernoulli(torch.full_like(x, 0.5))
        last = x.contiguous(memory_format=torch.channels_last)
        x = (
            x
            + torch.empty_like(last).bernoulli_(0.5)
            + x.new_empty(x.shape).uniform_()
            + x.new_empty(x.shape).normal_()
        )
        windows = F.dropout(x.unflatten(3, (2, 2)).transpose(1, 3).flatten(0, 1), 0.3)
        return windows.unflatten(0, (len(x), 2)).flatten(1)


@pytest.mark.parametrize("sizes", [(4, 4), (3, 3, 2), (1,) * 8])
def test_layers_draw_what_they_draw_for_the_whole_batch(sizes: tuple[int, ...]) -> None:
    x = torch.rand(8, 3, 4, 4, requires_grad=True)
    torch.manual_seed(0)
    whole = Draws()(x.clone())
    outputs, start = [], 0
    for number, size in enumerate(sizes):
        torch.manual_seed(0)
        with Part(number, len(sizes), start, size, 8).layers():
            outputs.append(Draws()(x[start : start + size].clone()))
        start += size
    torch.testing.assert_close(torch.cat(outputs), whole)
    torch.testing.assert_close(
        torch.autograd.grad(torch.cat(outputs).square().sum(), x),
        torch.autograd.grad(whole.square().sum(), x),
    )


def test_fused_attention_drops_other_weights_in_each_part_and_what_follows_is_as_before() -> None:
    x = torch.rand(2, 2, 5, 4)
    found = []
    for number in (0, 1):
        torch.manual_seed(0)
        with Part(number, 2, 2 * number, 2, 4).layers():
            found.append((F.scaled_dot_product_attention(x, x, x, dropout_p=0.5), torch.rand(3)))
    assert not torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_batches_are_cut_between_sub_batches() -> None:
    for parts, copies, total in ((2, 8, 13), (4, 8, 128), (8, 8, 9), (3, 1, 10), (2, 1, 2)):
        cut = Sharing(accumulate=parts, sub_batches=copies)
        found = list(cut.parts(total))
        assert [part.number for part, _, _ in found] == list(range(parts))
        assert [i for _, rows, _ in found for i in range(total)[rows]] == list(range(total))
        assert [part.last for part, _, _ in found] == [False] * (parts - 1) + [True]
        assert sum(weight for _, _, weight in found) == pytest.approx(parts)
        sizes = [total // copies + (m < total % copies) for m in range(copies)] if copies > 1 else [0] * parts
        if copies > 1:
            each = copies // parts
            assert [part.size for part, _, _ in found] == [
                sum(sizes[i * each : (i + 1) * each]) for i in range(parts)
            ]
    second = Sharing(Processes(1, 2), 2)
    assert second.own(16) == slice(8, 16)
    assert [(part.number, rows) for part, rows, _ in second.parts(16)] == [(2, slice(0, 4)), (3, slice(4, 8))]


def check(*overrides: str, devices: int = 1, accumulate: int = 1, examples: int = 1000) -> None:
    cell, runtime = load(overrides)
    _, method = build(cell, source_of(cell, runtime), "cpu")
    Shareable.of(cell, method, examples).check(devices, accumulate)


@pytest.mark.parametrize(
    ("overrides", "parts", "message"),
    [
        (["method=damp"], {"devices": 16}, "devices=16 is more than method.sub_batches=8"),
        (
            ["method=sam", "recipe.batch_size=96"],
            {"devices": 3},
            "devices=3 is no divisor of method.sub_batches=8",
        ),
        (
            ["method=asam", "method.preset=davda54", "method.running_variance=unbiased"],
            {"devices": 2},
            "is more than method.sub_batches=1: .*; no number of devices above 1 is possible$",
        ),
        (
            ["method=sgd", "recipe.batch_size=100"],
            {"devices": 3},
            "batch_size=100 can't be divided by devices=3; use devices=2, 4, 5, 10, 20, 25 or 50",
        ),
        (
            ["method=sgd"],
            {"accumulate": 2},
            "can't know; leave out accumulate, and use devices=2, 4, 8, 16, 32 or 64$",
        ),
        (["method=damp"], {"accumulate": 2}, "BatchNorm takes its statistics over the whole batch"),
        (
            ["model=vit_tiny"],
            {"devices": 2, "accumulate": 3},
            "can't be divided by devices=2 times accumulate=3; use accumulate=2, 4, 8, 16 or 32 with devices=2$",
        ),
        (
            ["recipe.drop_last=false"],
            {"devices": 4, "examples": 130},
            "the last batch of an epoch has 2 images, fewer than devices=4; use devices=2$",
        ),
        (
            ["recipe.drop_last=false", "recipe.mixup_lambda=0.8"],
            {"devices": 2, "examples": 135},
            "MixUp on 2 devices needs batches that divide into equal parts, and an epoch has one of 7",
        ),
        (
            ["recipe.drop_last=false", "recipe.mixup_lambda=0.8"],
            {"devices": 8, "examples": 132},
            "has 4 images, fewer than devices=8; use devices=2 or 4$",
        ),
    ],
)
def test_what_would_change_the_cell_is_refused_in_one_line(
    overrides: list[str], parts: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        check("recipe.batch_size=64", *overrides, **parts)
    assert "\n" not in str(raised.value)


def test_what_changes_nothing_is_not_refused() -> None:
    check("method=damp", "method.batch_norm=separate", accumulate=4)
    check("model=vit_tiny", "recipe=vit_smoke", "method=sam", devices=2, accumulate=4)
    check("method=damp", "recipe.drop_last=false", devices=8, examples=140)
    check("method=sgd", devices=8)


def test_synchronised_statistics_of_one_process_are_its_own(tmp_path: Path) -> None:
    """Against torch's BatchNorm, with and without running statistics and weights, outputs and all gradients."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1
    )
    try:
        for shape in ((6, 3), (6, 3, 4), (6, 3, 4, 4)):
            for affine in (True, False):
                values = []
                for norm in (F.batch_norm, lambda *of: batch_norm(torch.distributed.group.WORLD, *of)):
                    torch.manual_seed(0)
                    x = torch.randn(shape, requires_grad=True)
                    scale, shift = (torch.randn(3, requires_grad=True) for _ in range(2))
                    running = torch.zeros(3), torch.ones(3)
                    y = norm(x, *running, *((scale, shift) if affine else (None, None)), True, 0.1, 1e-5)
                    inputs = (x, scale, shift) if affine else (x,)
                    values.append([y, *running, *torch.autograd.grad((y**3).sum(), inputs)])
                torch.testing.assert_close(*values, rtol=1e-4, atol=1e-5)
    finally:
        torch.distributed.destroy_process_group()
