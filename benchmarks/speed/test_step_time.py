"""Time of a training step of each method, relative to a hand-written PyTorch loop on the same model and data.

Run with ``make bench``. Both steps alternate, and the ratio is the median over the pairs, so that a change of
the machine's load meets both. On a GPU the model is ResNet-18 at the papers' batch of 128, on a CPU a narrow
one.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from baselines import ASAM, SAM, SGD, CorruptedSGD, Dropout
from benchmarks.models import resnet
from weightaug import DAAP, DAMP, WAS, Method

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
WIDTH, BATCH, PAIRS = (64, 128, 30) if GPU else (8, 128, 8)


def noisier(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return x + 0.1 * torch.randn(x.shape, generator=generator, device=x.device)


METHODS: dict[str, Callable[[nn.Module], Method]] = {
    "SGD": SGD,
    "Dropout": Dropout,
    "SGD on corrupted inputs": lambda model: CorruptedSGD(model, corruption=noisier),
    "WAS": WAS,
    "DAMP, M = 1": lambda model: DAMP(model, sub_batches=1),
    "DAMP, M = 8": lambda model: DAMP(model, sub_batches=8),
    "DAAP, M = 8": lambda model: DAAP(model, sub_batches=8),
    "SAM, M = 1": lambda model: SAM(model, sub_batches=1),
    "SAM, M = 8": lambda model: SAM(model, sub_batches=8),
    "ASAM, M = 1": lambda model: ASAM(model, sub_batches=1),
    "ASAM, M = 8": lambda model: ASAM(model, sub_batches=8),
    "WAS in SAM, M = 8": lambda model: WAS(model, within=SAM(model, sub_batches=8)),
}
BARS = {"SGD": 1.03, "DAMP, M = 1": 1.10, "SAM, M = 1": 2.05, "ASAM, M = 1": 2.05}
if GPU:
    BARS["DAMP, M = 8"] = 1.5

Step = Callable[[], None]


def build() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = resnet.build(num_classes=10, in_channels=3, image_size=32, width=WIDTH).to(DEVICE)
    return model, torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True)


def data() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return x.to(DEVICE), (torch.arange(BATCH) % 10).to(DEVICE)


def hand_written() -> Step:
    model, optimizer = build()
    x, y = data()

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def step_of(make: Callable[[nn.Module], Method]) -> Step:
    model, optimizer = build()
    method = make(model)
    x, y = data()

    def step() -> None:
        optimizer.zero_grad()
        method.backward(F.cross_entropy, x, y)
        optimizer.step()

    return step


def seconds(step: Step) -> float:
    """Wall time on a GPU; on a CPU processor time of one thread, as other programs' load touches it least."""
    clock = time.perf_counter if GPU else time.process_time
    start = clock()
    step()
    if GPU:
        torch.cuda.synchronize()
    return clock() - start


def median_ratio(step: Step, reference: Step) -> float:
    torch.set_num_threads(1)
    for warm_up in (step, reference) * 2:
        seconds(warm_up)
    return statistics.median(seconds(step) / seconds(reference) for _ in range(PAIRS))


def report(benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str], name: str, ratio: float) -> None:
    benchmark.extra_info["ratio"] = ratio
    with capsys.disabled():
        print(f"\n{name}: {ratio:.3f}", end="")


@pytest.mark.parametrize("name", METHODS)
def test_step(benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str], name: str) -> None:
    step = step_of(METHODS[name])
    ratio = median_ratio(step, hand_written())
    benchmark.group = "training step"
    benchmark.pedantic(lambda: seconds(step), rounds=PAIRS)
    report(benchmark, capsys, f"{name} / hand-written SGD", ratio)
    if name in BARS:  # a bar missed is told, not failed: on a noisy machine a ratio moves by some per cent
        with capsys.disabled():
            print(f" (bar {BARS[name]}, {'held' if ratio <= BARS[name] else 'missed'})", end="")


if importlib.util.find_spec("pytorch_optimizer"):

    def test_sam_against_pytorch_optimizer(
        benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]
    ) -> None:
        import pytorch_optimizer

        model, _ = build()
        x, y = data()
        optimizer = pytorch_optimizer.SAM(
            model.parameters(), torch.optim.SGD, rho=0.05, lr=0.01, momentum=0.9, nesterov=True
        )

        def closure() -> Any:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        def other() -> None:
            closure()
            optimizer.step(closure)

        step = step_of(METHODS["SAM, M = 1"])
        ratio = median_ratio(step, other)
        benchmark.group = "training step"
        benchmark.pedantic(lambda: seconds(other), rounds=PAIRS)
        report(benchmark, capsys, "SAM, M = 1 / pytorch-optimizer's SAM", ratio)
