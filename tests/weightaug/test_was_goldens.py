"""WAS kernels and layers against values from the authors' code."""

from __future__ import annotations

import pytest
import torch
from golden_files import deviation, draw_of, load_golden, tensor
from scipy.stats import chisquare
from torch import nn

from weightaug import WAS
from weightaug.kernel_draws import Crop, Draw, Shift, apply
from weightaug.kernel_transforms import RandomCrop, RandomShift

TOLERANCE = 1e-9


def check_kernels(name: str, weight: str, expected: str, draws: list[Draw]) -> None:
    arrays, _ = load_golden(name)
    for number, draw in enumerate(draws):
        w = tensor(arrays[weight]).requires_grad_()
        transformed = apply(w, draw)
        assert deviation(transformed, arrays[expected][number]) < TOLERANCE
        residual, gradient = weight.replace("W", "R"), expected.replace("_T", "_gradW").replace("T", "gradW")
        if residual in arrays and gradient in arrays:
            (transformed * tensor(arrays[residual])).sum().backward()
            assert deviation(w.grad, arrays[gradient][number]) < TOLERANCE


def shifts() -> list[Draw]:
    arrays, _ = load_golden("was_t1_kernels")
    return [Shift(int(dx), int(dy)) for dx, dy in arrays["shifts_dx_dy"]]


@pytest.mark.parametrize("weight", ["W3", "W5", "Wdw3", "Wdw5"])
def test_shifted_kernels(weight: str) -> None:
    check_kernels("was_t1_kernels", weight, weight.replace("W", "T"), shifts())


@pytest.mark.parametrize("taps", [3, 5])
def test_shift_probabilities(taps: int) -> None:
    arrays, _ = load_golden("was_t1_kernels")
    outcomes = RandomShift(0.3).outcomes((taps, taps))
    probabilities = [outcomes[draw] for draw in shifts()]
    assert len(outcomes) == 9
    assert probabilities == pytest.approx(arrays[f"prob{taps}"].tolist(), rel=1e-12)
    counts = arrays[f"drawn_counts{taps}"]
    assert chisquare(counts, [p * counts.sum() for p in probabilities]).pvalue > 1e-4


CROPS = [(3, 8, 10), (3, 6, 8), (5, 8, 10), (5, 6, 8)]


def crops(prefix: str) -> list[Draw]:
    arrays, _ = load_golden("was_t2_kernels")
    return [Crop(*map(int, row)) for row in arrays[f"{prefix}_crops_ijhw"]]


@pytest.mark.parametrize(("taps", "low", "high"), CROPS)
def test_cropped_kernels(taps: int, low: int, high: int) -> None:
    prefix = f"k{taps}_scale{low}_{high}"
    check_kernels("was_t2_kernels", f"W{taps}", f"{prefix}_T", crops(prefix))


@pytest.mark.parametrize(("taps", "low", "high"), CROPS)
def test_crop_probabilities(taps: int, low: int, high: int) -> None:
    arrays, _ = load_golden("was_t2_kernels")
    prefix = f"k{taps}_scale{low}_{high}"
    outcomes = RandomCrop(low / 10, high / 10).outcomes((taps, taps))
    probabilities = [outcomes[draw] for draw in crops(prefix)]
    assert set(outcomes) == set(crops(prefix))
    assert sum(outcomes.values()) == pytest.approx(1, abs=1e-12)
    # The golden probabilities are integrated numerically, to about 1e-4.
    assert probabilities == pytest.approx(arrays[f"{prefix}_prob"].tolist(), abs=2e-4)
    counts = arrays[f"{prefix}_drawn_counts"]
    expected = [p * counts.sum() for p in probabilities]
    assert chisquare(counts, expected).pvalue > 1e-4


def conv_cases() -> list[str]:
    arrays, info = load_golden("was_conv")
    return [case["name"] for case in info["cases"] if f"{case['name']}/x" in arrays]


@pytest.mark.parametrize("name", conv_cases())
def test_one_layer(name: str) -> None:
    arrays, info = load_golden("was_conv")
    case = next(case for case in info["cases"] if case["name"] == name)
    values = {key.split("/")[1]: arrays[key] for key in arrays if key.startswith(f"{name}/")}
    weight = tensor(values["weight"])
    out, inner = weight.shape[:2]
    layer = nn.Conv2d(
        inner * case["groups"],
        out,
        case["kernel"],
        case["stride"],
        case["padding"],
        groups=case["groups"],
        bias=case["bias"],
    ).double()
    layer.weight.data.copy_(weight)
    if layer.bias is not None:
        layer.bias.data.copy_(tensor(values["bias"]))
    model = nn.Sequential(layer)
    method = WAS(model)
    assert method.coefficients is not None
    residual = tensor(values["R"])
    for number, row in enumerate(values["draws"]):
        x = tensor(values["x"]).requires_grad_()
        method.draws = {"0": draw_of(row)}
        method.coefficients.data.fill_(float(values["K"][number]))
        model.zero_grad()
        method.coefficients.grad = None
        method.backward(lambda output, target: (output * target).sum(), x, residual)
        assert deviation(method.predict(x, "shadow"), values["out"][number]) < TOLERANCE
        assert deviation(layer.weight.grad, values["grad_weight"][number]) < TOLERANCE
        assert deviation(method.coefficients.grad[0], values["grad_K"][number]) < TOLERANCE
        assert deviation(x.grad, values["grad_x"][number]) < TOLERANCE
        if layer.bias is not None:
            assert deviation(layer.bias.grad, values["grad_bias"][number]) < TOLERANCE
    assert deviation(method.predict(tensor(values["x"])), values["out_plain"]) < TOLERANCE
    assert torch.equal(layer.weight, weight)
