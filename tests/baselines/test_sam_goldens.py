"""SAM and ASAM against three steps of the DAMP authors' code, of davda54/sam and of SamsungLabs/ASAM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import deviation, golden_names, load_golden
from golden_training import CASES, Recorder, check_case, check_gradients
from torch import Tensor, nn

from baselines import ASAM, SAM
from baselines.sam import PRESETS
from weightaug import RandomSource


def make_official(model: nn.Module, settings: dict[str, Any], random: RandomSource) -> SAM | ASAM:
    options: dict[str, Any] = {
        **PRESETS["official-damp-paper"],
        "sub_batches": settings["M"],  # the paper's is 8; the small cases have fewer
        "batch_norm": "synchronised" if settings.get("sync_batch_norm", True) else "separate",
    }
    if settings["method"] == "asam":
        return ASAM(model, rho=settings["rho"], eta=settings["eta"], **options)
    del options["normalise"], options["eta_at_zero"]
    return SAM(model, rho=settings["rho"], **options)


@pytest.mark.parametrize("case", golden_names(*(case for case in CASES if "sam_" in case)))
def test_sam_and_asam_are_the_damp_authors(case: str) -> None:
    check_case(case, make_official)


class Network(nn.Module):
    """The network of the davda54 and Samsung vectors: convolutions with biases, PyTorch's BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3, 2, 1)
        self.bn2 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return self.fc(x.mean((2, 3)))


def make_preset(model: nn.Module, file: str, case: dict[str, Any]) -> SAM | ASAM:
    preset = "davda54" if file == "davda54_sam" else "samsung"
    if preset == "davda54" and case["bn_stats"] == "both passes":
        options = {
            "sub_batches": 1,
            "epsilon": 1e-12,
            "statistics": "both",
        }  # sam.py without its example's bypass
        if case["adaptive"]:
            return ASAM(model, rho=case["rho"], normalise="all", **options)
        return SAM(model, rho=case["rho"], **options)
    if case.get("adaptive", case.get("minimizer") == "ASAM"):
        return ASAM(model, rho=case["rho"], eta=case.get("eta", 0.0), preset=preset)
    return SAM(model, rho=case["rho"], preset=preset)


def cases(file: str) -> list[Any]:
    return [pytest.param(file, case, id=f"{file}-{case['name']}") for case in load_golden(file)[1]["cases"]]


@pytest.mark.parametrize(("file", "case"), [*cases("davda54_sam"), *cases("samsung_asam")])
def test_presets_are_the_other_implementations(file: str, case: dict[str, Any]) -> None:
    arrays, _ = load_golden(file)
    prefix = case["name"] + "/"
    own = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
    model = Network().double()
    for name, array in arrays.items():
        if name.startswith(("param/", "buffer/")):
            start = torch.from_numpy(array)
            model.load_state_dict({name.partition("/")[2]: start}, strict=False)
    method = make_preset(model, file, case)
    recorder = Recorder(method, 1)
    options = {key: case[key] for key in ("lr", "momentum", "weight_decay", "nesterov")}
    optimizer = torch.optim.SGD(model.parameters(), **options)
    for step in (1, 2, 3):
        x = torch.from_numpy(arrays["x"][step - 1]).double()
        loss = method.backward(recorder.criterion, x, torch.from_numpy(arrays["y"][step - 1]))
        assert deviation(loss, own["loss"][step - 1]) < 1e-8
        if step == 1:
            assert deviation(recorder.losses[1].squeeze(), own["second_loss1"]) < 1e-9
            check_first_step(recorder, own)
        optimizer.step()
        optimizer.zero_grad()
        if step != 2:
            after = {k.partition("_")[2]: v for k, v in own.items() if k.startswith(f"after{step}/")}
            state = {k: v for k, v in model.state_dict().items() if "num_batches" not in k}
            assert set(after) == set(state)
            for name, value in state.items():
                assert deviation(value, after[name]) < (1e-9 if step == 1 else 1e-8), name


def check_first_step(recorder: Recorder, own: Mapping[str, np.ndarray]) -> None:
    renamed = {k.replace("grad_", "grad/", 1): v for k, v in own.items()}
    for number, kind in enumerate(("first_grad", "second_grad")):
        check_gradients({n: g.squeeze(0) for n, g in recorder.gradients[number].items()}, renamed, kind, 1e-9)
    for name, weight in recorder.passes[1].items():
        assert deviation(weight.squeeze(0), own[f"perturbed_{name}"]) < 1e-9, name
