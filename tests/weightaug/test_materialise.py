"""Materialised networks against the zero-filled ones that they stand for."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import batch, mixed
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models import resnet, was_efficientnet_lite, was_googlenet, was_mobilenetv2, was_vgg
from weightaug import WAS, materialise
from weightaug.kernel_draws import Affine, Crop, Custom, Flip, LayerDraw, Shift, apply
from weightaug.materialise import TrimmedConv2d, shrinks

TOLERANCE = 1e-12


def flops(model: nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops()


def close(actual: Tensor, expected: Tensor) -> bool:
    return torch.allclose(
        actual, expected, rtol=TOLERANCE, atol=TOLERANCE * float(expected.detach().abs().max() + 1)
    )


small = st.integers(1, 4)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """Any Conv1d or Conv2d with a kernel larger than one tap, and an input that it takes."""
    axes = draw(st.sampled_from([1, 2]))
    kernel = draw(st.tuples(*[st.integers(1, 5)] * axes).filter(lambda taps: max(taps) > 1))
    dilation = draw(st.tuples(*[st.integers(1, 3)] * axes))
    stride = draw(st.tuples(*[st.integers(1, 3)] * axes))
    padding: Any = draw(st.one_of(st.just("valid"), st.just("same"), st.tuples(*[st.integers(0, 3)] * axes)))
    stride = (1,) * axes if padding == "same" else stride
    groups = draw(st.integers(1, 3))
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    spans = [step * (taps - 1) + 1 for step, taps in zip(dilation, kernel, strict=True)]
    # a window of the input, which reflection and wrapping ask to be larger than what they pad
    least = 1 if mode == "zeros" else max([*spans, 4])
    size = [max(least, span + draw(st.integers(0, 4))) for span in spans]
    torch.manual_seed(draw(st.integers(0, 2**16)))
    layer = (nn.Conv1d, nn.Conv2d)[axes - 1](
        groups * draw(small),
        groups * draw(small),
        kernel,
        stride,
        padding,
        dilation,
        groups,
        bias=draw(st.booleans()),
        padding_mode=mode,
    ).double()
    x = torch.randn(draw(st.integers(1, 3)), layer.in_channels, *size, dtype=torch.float64)
    return layer, x


shifts = st.builds(Shift, st.integers(-6, 6), st.integers(-6, 6))


@settings(max_examples=100, deadline=None)
@given(convolutions(), shifts, st.floats(0.01, 2))
def test_outputs_gradients_and_flops_of_any_convolution(
    case: tuple[nn.Module, Tensor], shift: Shift, k: float
) -> None:
    layer, x = case
    before = copy.deepcopy(layer.state_dict())
    dense = copy.deepcopy(layer)
    dense.weight.data.copy_(k * apply(layer.weight.data, shift))
    trimmed = materialise(layer, {"": shift}, coefficients={"": torch.tensor(k, dtype=torch.float64)})
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    outputs = [model(value) for model, value in zip((trimmed, dense), inputs, strict=True)]
    assert close(*outputs)
    for output in outputs:
        output.square().sum().backward()
    assert close(inputs[0].grad, inputs[1].grad)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    # the gradient of the taps that are left, and multiply-adds for them alone
    kept = [slice(None), slice(None)]
    for taps, step in zip(layer.kernel_size, (shift.dy, shift.dx)[2 - len(layer.kernel_size) :], strict=True):
        kept.append(slice(max(0, step), max(0, taps + min(0, step))))
    expected = dense.weight.grad[tuple(kept)]
    height = layer.kernel_size[0] if len(layer.kernel_size) == 2 else 1
    if expected.numel() and abs(shift.dy) < height:
        assert close(trimmed.weight.grad, expected)
        share = expected[0, 0].numel() / dense.weight[0, 0].numel()
    else:
        assert not trimmed.weight.any()  # all is shifted out; one tap of zeros stays
        share = 1 / dense.weight[0, 0].numel()
    assert flops(trimmed, x) == pytest.approx(share * flops(dense, x), rel=1e-12)
    if layer.bias is not None:
        assert close(trimmed.bias.grad, dense.bias.grad)


NETWORKS = {
    "vgg16": lambda: was_vgg.build(
        num_classes=4, layout="4,4,M,8,8,M,8,8,8,M,8,8,8,M,8,8,8,M", hidden=8, dropout=0.5
    ),
    "resnet18": lambda: resnet.build(
        num_classes=4,
        in_channels=3,
        image_size=32,
        width=4,
        padding="symmetric",
        zero_init_gamma=False,
        shortcut=3,
        shadow_layers=r"layer\d\.\d+\.conv[12]",
    ),
    "resnet34": lambda: resnet.build(
        num_classes=4,
        in_channels=3,
        image_size=32,
        blocks="3,4,6,3",
        width=2,
        padding="symmetric",
        zero_init_gamma=False,
        shortcut=3,
        shadow_layers=r"layer\d\.\d+\.conv[12]",
    ),
    "googlenet": lambda: was_googlenet.build(num_classes=4, width=0.05),
    "mobilenetv2": lambda: was_mobilenetv2.build(num_classes=4, width=0.1),
    "efficientnet_lite0": lambda: was_efficientnet_lite.build(num_classes=4, width=0.1),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_the_was_authors(name: str) -> None:
    torch.manual_seed(0)
    model = NETWORKS[name]().double()
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    method = WAS(model)  # T1 and T2 evenly mixed, K random
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = None
    method.predict(x, "shadow")  # statistics of these very images, so that the logits depend on them
    model.eval()
    state = copy.deepcopy(model.state_dict())
    method.draws = method.draw("test")
    trimmed = materialise(method)
    expected = method.predict(x, "shadow")
    assert expected.std(0).min() > 1e-4
    assert close(trimmed(x), expected)
    assert not any(module.training for module in trimmed.modules())
    assert trimmed.state_dict().keys() == state.keys()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert flops(trimmed, x) < flops(model, x)
    trimmed(x).sum().backward()
    assert all(p.grad is not None for p in trimmed.parameters())
    assert all(p.grad is None for p in model.parameters())


def test_other_draws_keep_the_kernels_size() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
    ).double()
    draws: dict[str, LayerDraw] = {
        "0": Crop(0, 0, 2, 2),
        "1": Flip(horizontal=True),
        "2": Custom(lambda w, generator: w * torch.rand(3, 3, generator=generator, dtype=w.dtype), 5),
        "3": Affine(angle=90.0),
    }
    method = WAS(model, layers=".*", draws=draws)
    trimmed = materialise(method)
    x = torch.randn(1, 2, 12, 12, dtype=torch.float64)
    assert close(trimmed(x), method.predict(x, "shadow"))
    assert [tuple(layer.weight.shape[-2:]) for layer in trimmed] == [(3, 3)] * 4
    assert all(type(layer) is nn.Conv2d for layer in trimmed)


def test_one_draw_per_kernel_keeps_a_window_for_all() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1)).double()
    draws = {"0": (Shift(1, 0), Shift(1, 1), Shift(1, 0))}
    method = WAS(model, draws=draws)
    trimmed = materialise(method)
    assert trimmed[0].kernel_size == (3, 2) and trimmed[0].padding == (1, 0)
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64)
    assert close(trimmed(x), method.predict(x, "shadow"))


def test_symmetric_padding_needs_no_copy_of_the_input() -> None:
    rows = materialise(nn.Conv2d(1, 1, 3, padding=1), {"": Shift(0, 1)})
    assert isinstance(rows, TrimmedConv2d)
    assert (rows.kernel_size, rows.padding, rows.margins) == ((2, 3), (0, 1), (0, 0, 0, 1))
    assert "margins=(0, 0, 0, 1)" in repr(rows)
    same = materialise(nn.Conv2d(1, 1, (2, 3), padding="same"), {"": Shift(0, -1)})
    assert type(same) is nn.Conv2d and same.kernel_size == (1, 3) and same.padding == (0, 1)


class Standardised(nn.Conv2d):
    """Its weight is not what it convolves with."""

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight - self.weight.mean(), self.bias)


def test_subclasses_keep_their_size_and_stay_right() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), Standardised(2, 2, 3), nn.Conv2d(2, 2, 3)).double()
    method = WAS(model, draws={"1": Shift(1, 1), "2": Shift(0, 1)})
    trimmed = materialise(method)
    assert type(trimmed[1]) is Standardised and trimmed[1].weight.shape == (2, 2, 3, 3)
    assert trimmed[2].weight.shape == (2, 2, 2, 3)
    assert [shrinks(model, layer) for layer in model] == [True, False, True]
    x = torch.randn(1, 1, 9, 9, dtype=torch.float64)
    assert close(trimmed(x), method.predict(x, "shadow"))


@pytest.mark.parametrize("kind", [nn.Conv2d, Standardised])
def test_shared_weights_stay_shared(kind: type[nn.Conv2d]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), kind(2, 2, 3, stride=2)).double()
    model[2].weight = model[1].weight
    model.append(model[1])  # and one module twice
    method = WAS(model, draws={"1": Shift(0, 1)})
    trimmed = materialise(method)
    assert trimmed[1].weight is trimmed[2].weight and trimmed[3] is trimmed[1]
    assert shrinks(model, model[1]) == (kind is nn.Conv2d)
    x = torch.randn(1, 1, 19, 19, dtype=torch.float64)
    assert close(trimmed(x), method.predict(x, "shadow"))


def test_training_goes_on_and_hooks_stay() -> None:
    torch.manual_seed(0)
    model = mixed()
    model.stem.weight.requires_grad_(False)
    seen: list[torch.Size] = []
    model.grouped.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    method = WAS(model, layers="stem|grouped|patches")
    x, y = batch(4)
    random = torch.get_rng_state()
    trimmed = materialise(method, {"stem": Shift(1, 0), "grouped": Shift(1, 1), "patches": Shift(0, -1)})
    assert torch.equal(random, torch.get_rng_state())
    assert trimmed.training and not trimmed.stem.weight.requires_grad
    optimizer = torch.optim.SGD(trimmed.parameters(), lr=0.1)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = F.cross_entropy(trimmed(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert seen == [torch.Size([4, 8, 8, 8])] * 5


def tiny() -> tuple[nn.Module, Tensor, Tensor]:
    """A materialised network with margins, cut inputs and strides; an input; the zero-filled outputs."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2),
        nn.Conv2d(4, 4, 3),
    ).eval()
    draws = {"0": Shift(1, -1), "3": Shift(0, 1), "4": Shift(-1, 0)}
    method = WAS(model, layers=".*", draws=draws)
    x = torch.randn(2, 1, 9, 9)
    return materialise(method), x, method.predict(x, "shadow")


def test_can_be_saved_whole() -> None:
    trimmed, x, _ = tiny()
    file = io.BytesIO()
    torch.save(trimmed, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), trimmed(x))


def test_compiles_whole() -> None:
    trimmed, x, expected = tiny()
    compiled = torch.compile(trimmed, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), expected, atol=1e-6)


def test_a_compiled_model_is_materialised_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3))
    method = WAS(torch.compile(model, backend="eager"))
    (layer,) = method.layers
    trimmed = materialise(method, {layer: Shift(1, 0)})
    assert isinstance(trimmed, nn.Sequential) and trimmed[1].kernel_size == (3, 2)


def test_exports_to_onnx(tmp_path: Any) -> None:
    import onnxruntime

    trimmed, x, expected = tiny()
    path = tmp_path / "dom.onnx"
    torch.onnx.export(trimmed, (x,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert np.allclose(output, expected.numpy(), atol=1e-5)


def test_bad_input() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 1))
    method = WAS(model)
    with pytest.raises(ValueError, match=r"no draws to materialise: give draws by layer"):
        materialise(method)
    with pytest.raises(ValueError, match=r"nothing for the shadow layer '2'; give one for each"):
        materialise(method, {"1": Shift(1, 0)})
    with pytest.raises(ValueError, match=r"'0', which is no shadow layer; one is called '[12]'"):
        materialise(method, {"0": Shift(1, 0), "1": Shift(1, 0), "2": Shift(1, 0)})
    with pytest.raises(ValueError, match=r"'3', which is no shadow layer"):
        materialise(model, {"3": Shift(1, 0)})
    with pytest.raises(ValueError, match=r"coefficients has nothing for '1'"):
        materialise(model, {"1": Shift(1, 0)}, coefficients={"0": torch.ones(())})
    with pytest.raises(ValueError, match="2 draws for 3 kernels"):
        materialise(nn.Conv2d(1, 3, 3), {"": (Shift(0, 0), Shift(1, 0))})
    with pytest.raises(ValueError, match="larger than 1x1, and the model has none"):
        materialise(nn.Linear(2, 2), {"": Shift(1, 0)})
