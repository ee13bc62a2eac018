"""WAS within SAM, ASAM, DAMP and DAAP: what is perturbed, one draw per layer and step, stack against loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from was_networks import batch, gradients, seeded

from baselines import ASAM, SAM, SGD
from weightaug import DAAP, DAMP, WAS, Method
from weightaug.kernel_draws import apply

Make = Callable[..., Method]
OPTIONS: dict[str, tuple[Make, dict[str, Any]]] = {
    "sam": (SAM, {"rho": 0.05}),
    "asam": (ASAM, {"rho": 0.5}),
    "damp": (DAMP, {}),
    "daap": (DAAP, {"sigma": 0.05}),
}
each = pytest.mark.parametrize(("make", "options"), OPTIONS.values(), ids=OPTIONS)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def steps(method: Method, count: int = 2) -> list[Tensor]:
    """Everything that training leaves: losses, weights, buffers, K."""
    parameters = [*method.model.parameters(), *method.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    losses = []
    for number in range(count):
        optimizer.zero_grad()
        losses.append(method.backward(F.cross_entropy, *batch(number)))
        optimizer.step()
    return [*losses, *method.model.state_dict().values(), *method.parameters()]


@each
@pytest.mark.parametrize("sub_batches", [1, 3])
def test_identity_transform_is_the_method_alone(
    make: Make, options: dict[str, Any], sub_batches: int
) -> None:
    alone = make(seeded(), sub_batches=sub_batches, **options)
    model = seeded()
    within = make(model, sub_batches=sub_batches, **options)
    combined = WAS(model, within=within, transform="identity", coefficient="none")
    assert all(torch.equal(a, b) for a, b in zip(steps(combined), steps(alone), strict=True))


@each
@pytest.mark.parametrize("per_kernel", [False, True])
def test_loop_equals_stack(make: Make, options: dict[str, Any], per_kernel: bool) -> None:
    """Nothing couples the sub-batches here, and the last batch is odd-sized."""
    results = []
    for stacked in (True, False):
        model = seeded(norm=False).double()
        within: Any = make(model, sub_batches=3, **options)
        within.copies.stacked = stacked
        method = WAS(model, within=within, per_kernel=per_kernel, seed=3)
        for number, count in enumerate((6, 7)):
            x, y = batch(number, count)
            method.backward(F.cross_entropy, x.double(), y)
        assert method.coefficients is not None
        results.append([*gradients(model), method.coefficients.grad])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def soft(y: Tensor) -> Tensor:
    """MixUp's labels [N, 3]: 0.7 of an example's own class and 0.3 of its partner's."""
    hot = F.one_hot(y, 3).double()
    return 0.7 * hot + 0.3 * hot.roll(1, 0)


@pytest.mark.parametrize("mixed", [False, True])
def test_sam_moves_the_plain_weights(mixed: bool) -> None:
    """Against the definition, M = 1: both gradients by hand, of the plain weights, through one K T."""
    model = seeded(norm=False).double()
    method = WAS(model, within=SAM(model, rho=0.3, sub_batches=1), seed=5)
    x, y = batch()[0].double(), batch()[1]
    targets = soft(y) if mixed else y
    draws = method.draw(0, "transform")
    assert method.coefficients is not None
    k = dict(zip(method.layers, method.coefficients.detach(), strict=True))

    def gradient(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        weights = {name: w.detach().requires_grad_() for name, w in weights.items()}
        shadow = {f"{n}.weight": k[n] * apply(weights[f"{n}.weight"], draws[n]) for n in method.layers}
        loss = F.cross_entropy(functional_call(model, {**weights, **shadow}, (x,)), targets)
        return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))

    plain = dict(model.named_parameters())
    first = gradient(plain)
    length = 0.3 / torch.cat([g.flatten() for g in first.values()]).norm()
    expected = gradient({name: w + length * first[name] for name, w in plain.items()})
    method.backward(F.cross_entropy, x, targets)
    for name, w in plain.items():
        torch.testing.assert_close(w.grad, expected[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "make",
    [SGD, WAS, lambda m: DAMP(m, sub_batches=3), lambda m: WAS(m, within=DAMP(m, sub_batches=3))],
    ids=["sgd", "was", "damp", "was-in-damp"],
)
def test_mixed_labels_mix_the_gradients(make: Callable[[nn.Module], Method]) -> None:
    """Cross-entropy is linear in the labels, and so is the gradient of one pass."""
    x, y = batch()[0].double(), batch()[1]
    hot = F.one_hot(y, 3).double()
    found = []
    for targets in (hot, hot.roll(1, 0), soft(y)):
        model = seeded(norm=False).double()
        loss = make(model).backward(F.cross_entropy, x, targets)
        found.append([loss, *gradients(model)])
    for own, partner, both in zip(*found, strict=True):
        torch.testing.assert_close(both, 0.7 * own + 0.3 * partner, rtol=1e-9, atol=1e-12)


@each
def test_resumes_exactly_and_over_fits(make: Make, options: dict[str, Any]) -> None:
    def build() -> tuple[nn.Module, Method]:
        model = seeded()
        return model, WAS(model, within=make(model, sub_batches=2, **options), coefficient="one")

    (model, method), (other, continued) = build(), build()
    optimizer = torch.optim.SGD([*model.parameters(), *method.parameters()], lr=0.1, momentum=0.9)
    x, y = batch()
    x = x + y.view(-1, 1, 1, 1)  # classes that can be told apart
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        losses.append(float(method.backward(F.cross_entropy, x, y)))
        optimizer.step()
    assert sum(losses[-5:]) / 5 < 0.8 * losses[0]
    other.load_state_dict(model.state_dict())
    continued.load_state_dict(method.state_dict())
    optimizer.zero_grad()
    for each_method in (method, continued):
        each_method.backward(F.cross_entropy, *batch(1))
    assert all(torch.equal(a, b) for a, b in zip(gradients(other), gradients(model), strict=True))
    assert torch.equal(continued.predict(batch()[0], "shadow"), method.predict(batch()[0], "shadow"))


@each
def test_weights_are_untouched_when_forward_raises(make: Make, options: dict[str, Any]) -> None:
    model = seeded()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    method = WAS(model, within=make(model, sub_batches=2, **options))
    x, y = batch()
    with pytest.raises(RuntimeError):
        method.backward(F.cross_entropy, x[:, :2], y)
    assert method.step == 0
    method.backward(F.cross_entropy, x, y)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_frozen_layers_have_shadows_too() -> None:
    model = seeded()
    model[3].weight.requires_grad_(False)
    method = WAS(model, within=DAMP(model, sigma=0.0, sub_batches=2), seed=2)
    alone = WAS(seeded(), seed=2)
    x, y = batch()
    torch.testing.assert_close(method.backward(F.cross_entropy, x, y), alone.backward(F.cross_entropy, x, y))
    assert model[3].weight.grad is None


def test_bad_input() -> None:
    model = seeded()
    for within in (SGD(model), SAM(seeded())):
        with pytest.raises(ValueError, match="composes with SAM, ASAM, DAMP or DAAP of the same model"):
            WAS(model, within=within)
    combined = WAS(model, within=SAM(model))
    with pytest.raises(ValueError, match="build it as it was"):
        combined.load_state_dict(WAS(seeded()).state_dict())
