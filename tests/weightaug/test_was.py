"""WAS as a method: layers, coefficients, modes, exact resume, reduction to SGD, weights restored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from was_networks import batch, gradients, network, seeded

from baselines import SGD
from weightaug import WAS
from weightaug.kernel_draws import Shift, apply
from weightaug.was import shadow_layers, shadow_weights


def test_layers() -> None:
    model = network()
    assert list(shadow_layers(model)) == ["3", "6"]
    assert list(shadow_layers(model, "[03]")) == ["0", "3"]
    assert list(shadow_layers(torch.compile(model, backend="eager"), "3")) == ["_orig_mod.3"]
    patches = torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 16)
    assert list(shadow_layers(patches)) == ["conv_proj"]
    assert len(shadow_layers(torchvision.models.resnet18())) == 16
    model.shadow_layers = "6"
    assert list(shadow_layers(model)) == ["6"]
    assert list(shadow_layers(torch.compile(model, backend="eager"))) == ["_orig_mod.6"]
    assert list(shadow_layers(nn.Sequential(nn.Conv1d(2, 3, 5), nn.Conv1d(3, 3, 5)))) == ["1"]


def test_shared_weights_have_one_shadow() -> None:
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)), nn.AvgPool2d(8), nn.Flatten())
    model[2].weight = model[1].weight
    method = WAS(model, transform="shift")
    assert list(method.layers) == ["1"]
    method.backward(F.cross_entropy, *batch())
    assert model[2].weight is model[1].weight
    assert model[1].weight.grad is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"layers": "conv.*"},
            "layers='conv.*' matches no convolution larger than 1x1; names look like 0, 3, 6",
        ),
        ({"layers": "7"}, "matches no convolution"),
        ({"layers": "("}, "is not a regular expression"),
        ({"transform": "sift"}, "unknown kernel transform 'sift'"),
        ({"translate": 2.0}, "translate is 2.0"),
        ({"scale_min": 0.0}, "the crop's scale"),
        ({"coefficient": "two"}, "coefficient='two' is not one of"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r".*" + message.replace("*", r"\*").replace("(", r"\(")):
        WAS(network(), **options)


def test_bad_models() -> None:
    with pytest.raises(ValueError, match="the model has none"):
        WAS(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Linear(3, 3)))
    with pytest.raises(ValueError, match="no window of a 1x5 kernel"):
        WAS(nn.Conv1d(3, 3, 5), transform="crop")
    with pytest.raises(ValueError, match="no inference mode 'dom'"):
        WAS(network()).predict(batch()[0], "dom")


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), coefficient=st.sampled_from(["one", "none"]), per_kernel=st.booleans())
def test_identity_transform_is_sgd_bit_for_bit(seed: int, coefficient: str, per_kernel: bool) -> None:
    x, y = batch(seed)
    results = []
    for kind in (SGD, WAS):
        model = seeded(seed)
        options = {"transform": "identity", "coefficient": coefficient, "per_kernel": per_kernel}
        method = SGD(model) if kind is SGD else WAS(model, **options)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(2):
            loss = method.backward(F.cross_entropy, x, y)
            optimizer.step()
            optimizer.zero_grad()
        results.append([loss, *model.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(
    "transform", ["shift", "crop", "shift_or_crop", "hflip_or_vflip", "rotate", "shear", "scale"]
)
@pytest.mark.parametrize("per_kernel", [False, True])
def test_gradient_is_the_chain_rule(transform: str, per_kernel: bool) -> None:
    """Against the gradient at the shadow weights, led back through T and K by hand."""
    model = seeded(norm=False).double()
    method = WAS(model, transform=transform, per_kernel=per_kernel, seed=4)
    x, y = batch()[0].double(), batch()[1]
    draws = method.draw(0, "transform")
    method.backward(F.cross_entropy, x, y)
    shadow = {name: w.detach().requires_grad_() for name, w in method.shadow(draws).items()}
    loss = F.cross_entropy(torch.func.functional_call(model, shadow, (x,)), y)
    at_shadow = torch.autograd.grad(loss, list(shadow.values()))
    assert method.coefficients is not None
    for i, (gradient, (name, layer)) in enumerate(zip(at_shadow, method.layers.items(), strict=True)):
        taps = layer.weight.shape[-1] ** 2
        basis = torch.eye(taps, dtype=torch.float64).view(taps, 1, 1, *layer.weight.shape[2:])
        draw = draws[name]
        for o in range(len(layer.weight)):
            one = draw[o] if per_kernel else draw
            jacobian = torch.stack([apply(b, one).flatten() for b in basis], dim=1)
            expected = method.coefficients[i].detach() * (gradient[o].flatten(1) @ jacobian)
            assert torch.allclose(layer.weight.grad[o].flatten(1), expected, rtol=1e-9, atol=1e-14)
        unscaled = shadow[f"{name}.weight"].detach() / method.coefficients[i].detach()
        assert torch.allclose(method.coefficients.grad[i], (gradient * unscaled).sum(), rtol=1e-9)


def test_taps_that_are_shifted_out_get_no_gradient() -> None:
    model = seeded()
    method = WAS(model, draws={"3": Shift(1, 0), "6": Shift(0, 0)})
    method.backward(F.cross_entropy, *batch())
    assert (model[3].weight.grad[..., 2] == 0).all()
    assert (model[3].weight.grad[..., :2] != 0).any()


@pytest.mark.parametrize("fails", [False, True])
def test_weights_are_untouched(fails: bool) -> None:
    model = seeded()
    parameters = dict(model.named_parameters())
    before = {name: p.detach().clone() for name, p in parameters.items()}
    method = WAS(model)
    x, y = batch()
    if fails:
        with pytest.raises(RuntimeError):
            method.backward(F.cross_entropy, x[:, :2], y)
    else:
        method.backward(F.cross_entropy, x, y)
        method.predict(x, "shadow")
    after = dict(model.named_parameters())
    assert all(after[name] is parameters[name] and torch.equal(after[name], p) for name, p in before.items())


def test_buffers_are_updated_as_the_model_does() -> None:
    model, other = seeded(), seeded()
    method = WAS(model, seed=2)
    x, y = batch()
    shadow = method.shadow(method.draw(0, "transform"))
    method.backward(F.cross_entropy, x, y)
    for name, weight in shadow.items():
        other.get_parameter(name).data.copy_(weight)
    other(x)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), other.buffers(), strict=True))


def train(model: nn.Module, method: WAS, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        method.backward(F.cross_entropy, *batch(step))
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize(
    "options", [{}, {"per_kernel": True}, {"coefficient": "none"}, {"transform": "rotate"}]
)
@pytest.mark.parametrize("stop", [0, 1, 3])
def test_exact_resume(options: dict[str, Any], stop: int, tmp_path: Any) -> None:
    def start(seed: int) -> tuple[nn.Module, WAS, torch.optim.Optimizer]:
        model = seeded(0)
        method = WAS(model, seed=seed, **options)
        learned = [*model.parameters(), *method.parameters()]
        return model, method, torch.optim.SGD(learned, lr=0.05, momentum=0.9)

    model, method, optimizer = start(seed=5)
    train(model, method, optimizer, range(stop))
    states = [part.state_dict() for part in (model, method, optimizer)]
    torch.save(states, tmp_path / "checkpoint.pt")
    x = batch()[0]
    method.predict(x, "shadow")
    train(model, method, optimizer, range(stop, 4))
    expected = method.predict(x, "shadow")

    resumed, continued, other = start(seed=99)
    for part, state in zip((resumed, continued, other), torch.load(tmp_path / "checkpoint.pt"), strict=True):
        part.load_state_dict(state)
    continued.predict(x, "shadow")
    train(resumed, continued, other, range(stop, 4))
    assert torch.equal(continued.predict(x, "shadow"), expected)
    pairs = zip(model.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert all(torch.equal(a, b) for a, b in zip(method.parameters(), continued.parameters(), strict=True))


def test_state_of_another_method_is_refused() -> None:
    state = WAS(network(), layers="3").state_dict()
    with pytest.raises(ValueError, match="coefficients do not fit"):
        WAS(network()).load_state_dict(state)
    with pytest.raises(ValueError, match="coefficients do not fit"):
        WAS(network(), coefficient="none").load_state_dict(state)


def test_modes() -> None:
    model = seeded().eval()
    x = batch()[0]
    method = WAS(model)
    assert torch.equal(method.predict(x), model(x))
    first, second = method.predict(x, "shadow"), method.predict(x, "shadow")
    assert not torch.equal(first, second)
    assert method.predictions == 2
    repeated = WAS(model)
    assert torch.equal(repeated.predict(x, "shadow"), first)
    method.draws = {"3": Shift(1, 0), "6": Shift(0, 0)}
    assert torch.equal(method.predict(x, "shadow"), method.predict(x, "shadow"))
    scaled = WAS(model, coefficient_in_aom=True)
    assert scaled.coefficients is not None
    expected = shadow_weights(
        {name: layer.weight for name, layer in scaled.layers.items()},
        {name: Shift(0, 0) for name in scaled.layers},
        dict(zip(scaled.layers, scaled.coefficients, strict=True)),
    )
    named = {f"{name}.weight": w for name, w in expected.items()}
    assert torch.equal(scaled.predict(x), torch.func.functional_call(model, named, (x,)))


def test_coefficients() -> None:
    method = WAS(torchvision.models.resnet18(num_classes=3), seed=1)
    [k] = method.parameters()
    assert k.shape == (16,)
    assert ((k >= 0) & (k < 1)).all()
    assert k.unique().numel() == 16
    assert torch.equal(WAS(network(), coefficient="one").parameters()[0], torch.ones(2))
    assert WAS(network(), coefficient="none").parameters() == []
    assert not torch.equal(k, WAS(torchvision.models.resnet18(), seed=2).parameters()[0])


def test_draws_depend_on_step_and_layer_only() -> None:
    method, other = WAS(seeded(0), seed=3), WAS(seeded(1), seed=3)
    assert [method.draw(i, "transform") for i in range(30)] == [other.draw(i, "transform") for i in range(30)]
    steps = [tuple(method.draw(i, "transform").values()) for i in range(30)]
    assert len(set(steps)) > 5
    assert any(a != b for a, b in steps)


def test_frozen_layers_and_nan_loss() -> None:
    model = seeded()
    model[3].weight.requires_grad_(False)
    method = WAS(model)
    method.backward(F.cross_entropy, *batch())
    assert model[3].weight.grad is None
    assert model[6].weight.grad is not None
    x, y = batch()
    assert method.backward(F.cross_entropy, x * float("nan"), y).isnan()


def test_autocast_and_compile() -> None:
    x, y = batch()
    model = seeded()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = WAS(model, seed=1).backward(F.cross_entropy, x, y)
    assert loss.isfinite()
    assert all(g.dtype == torch.float32 for g in gradients(model))
    eager, compiled = seeded(), torch.compile(seeded(), backend="aot_eager")
    first, second = WAS(eager, seed=1), WAS(compiled, seed=1)
    for step in range(3):
        a, b = (m.backward(F.cross_entropy, *batch(step)) for m in (first, second))
        assert torch.allclose(a, b, rtol=1e-5)
    for a, b in zip(gradients(eager), gradients(compiled), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def test_overfits_one_batch() -> None:
    model = seeded()
    method = WAS(model, transform="crop", coefficient="one")
    optimizer = torch.optim.Adam([*model.parameters(), *method.parameters()], lr=0.02)
    x, y = batch()
    for _ in range(80):
        loss = method.backward(F.cross_entropy, x, y)
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.1
