"""What must hold of every method, each in one canonical setting."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import two_processes
from small_networks import Mixed, batch, gradients, mixed
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from baselines import ASAM, SAM, SGD, CorruptedSGD, Dropout
from weightaug import DAAP, DAMP, WAS, Method

Make = Callable[[nn.Module], Method]


def noisier(x: Tensor, generator: torch.Generator) -> Tensor:
    return x + 0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype)


METHODS: dict[str, Make] = {
    "sgd": SGD,
    "dropout": lambda model: Dropout(model, p=0.1, places="norm"),
    "corrupted-sgd": lambda model: CorruptedSGD(model, corruption=noisier),
    "sam": lambda model: SAM(model, sub_batches=3),
    "sam-one": lambda model: SAM(model, sub_batches=1),
    "asam": lambda model: ASAM(
        model, sub_batches=3, rho=0.3, batch_norm="separate", running_variance="biased"
    ),
    "asam-one": lambda model: ASAM(model, preset="davda54", rho=0.3),
    "damp": lambda model: DAMP(model, sub_batches=3),
    "damp-one": lambda model: DAMP(model, sub_batches=1, running_variance="biased"),
    "damp-loop": lambda model: two_processes.unstacked(
        DAMP(model, sub_batches=3, batch_norm="separate", perturb="all")
    ),
    "daap": lambda model: DAAP(model, sub_batches=3),
    "was": lambda model: WAS(model, layers="stem|grouped", coefficient="one"),
    "was-in-sam": lambda model: WAS(
        model, within=SAM(model, sub_batches=3), layers="stem|grouped", coefficient="one"
    ),
    "was-in-damp": lambda model: WAS(
        model, within=DAMP(model, sub_batches=3), layers="stem|grouped", coefficient="one"
    ),
}
each = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


class Run:
    """A model, a method and an optimizer with momentum, whose whole state can be saved."""

    def __init__(self, make: Make) -> None:
        self.model = mixed(dtype=torch.float32)
        self.method = make(self.model)
        parameters = [*self.model.parameters(), *self.method.parameters()]
        self.optimizer = torch.optim.SGD(parameters, 0.05, momentum=0.9, nesterov=True)

    def step(self, number: int, count: int = 6) -> Tensor:
        x, y = batch(count, number, torch.float32)
        self.optimizer.zero_grad()
        loss = self.method.backward(F.cross_entropy, x, y)
        self.optimizer.step()
        return loss

    def parts(self) -> dict[str, Any]:
        return {"model": self.model, "method": self.method, "optimizer": self.optimizer}

    def save(self) -> bytes:
        file = io.BytesIO()
        torch.save({name: part.state_dict() for name, part in self.parts().items()}, file)
        return file.getvalue()

    def load(self, saved: bytes) -> None:
        states = torch.load(io.BytesIO(saved), weights_only=True)
        for name, part in self.parts().items():
            part.load_state_dict(states[name])


@each
def test_overfits_one_batch(make: Make) -> None:
    run = Run(make)
    losses = [float(run.step(0)) for _ in range(50)]
    assert sum(losses[-5:]) / 5 < 0.2 * losses[0]


@each
@pytest.mark.parametrize("stop", [1, 3])
def test_exact_resume(make: Make, stop: int) -> None:
    """Interrupted at any step and continued from a file: the same bits. The last batch is odd-sized."""
    whole, before, after = Run(make), Run(make), Run(make)
    expected = [whole.step(number, 5 if number == 3 else 6) for number in range(4)]
    for number in range(stop):
        before.step(number, 5 if number == 3 else 6)
    after.load(before.save())
    assert after.method.step == stop
    losses = [after.step(number, 5 if number == 3 else 6) for number in range(stop, 4)]
    assert losses == expected[stop:]
    assert equal(after.model.state_dict(), whole.model.state_dict())


@each
def test_weights_are_untouched_and_gradients_add_up(make: Make) -> None:
    run, other = Run(make), Run(make)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    total: dict[str, Tensor] = {}
    for number in range(2):
        x, y = batch(6, number, torch.float32)
        run.method.backward(F.cross_entropy, x, y)
        other.model.zero_grad()
        other.method.backward(F.cross_entropy, x, y)
        total = {name: total.get(name, 0) + g for name, g in gradients(other.model).items()}
    assert equal({name: p.detach() for name, p in run.model.named_parameters()}, before)
    torch.testing.assert_close(gradients(run.model), total)
    assert all(g.abs().sum() > 0 for name, g in total.items() if name != "patches.bias")


class Failing(Mixed):
    def forward(self, x: Tensor) -> Tensor:
        super().forward(x)
        raise RuntimeError("out of memory")


@each
def test_weights_are_untouched_when_forward_raises(make: Make) -> None:
    model = Failing()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    method = make(model)
    with pytest.raises(RuntimeError, match="out of memory"):
        method.backward(F.cross_entropy, *batch(6, dtype=torch.float32))
    assert equal({name: p.detach() for name, p in model.named_parameters()}, before)
    assert method.step == 0
    assert all(type(p) is nn.Parameter for p in model.parameters())


class Checkpointed(Mixed):
    """The grouped convolution's activations are computed again in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = checkpoint(lambda x: self.norm(self.grouped(self.stem(x))), x, use_reentrant=self.reentrant)
        return self.head(self.patches(x).mean((2, 3)))


@each
@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_is_right_or_an_error(make: Make, reentrant: bool) -> None:
    method = make(Checkpointed(reentrant))
    x, y = batch(6, dtype=torch.float32)
    x.requires_grad_()  # without which a reentrant checkpoint does nothing
    if isinstance(method, SGD | CorruptedSGD):
        method.backward(F.cross_entropy, x, y)
        assert method.model.stem.weight.grad.abs().sum() > 0
    else:  # of a reentrant one torch itself refuses SAM's first gradient
        with pytest.raises(
            (ValueError, RuntimeError), match=r"activation checkpointing would|use_reentrant=True"
        ):
            method.backward(F.cross_entropy, x, y)
        assert method.step == 0


@each
def test_frozen_parameters_get_no_gradient(make: Make) -> None:
    run = Run(make)
    run.model.positions.requires_grad_(False)
    run.model.grouped.requires_grad_(False)
    before = state(run.model)
    run.step(0)
    assert run.model.grouped.weight.grad is None
    assert torch.equal(run.model.grouped.weight, before["grouped.weight"])
    assert run.model.stem.weight.grad.abs().sum() > 0


class Shared(Mixed):
    """The head's layer serves twice, and one layer serves for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Conv2d(8, 8, 3, padding="same", groups=2)
        self.again.weight = self.grouped.weight
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.norm(self.stem(x)).relu())
        return self.head(self.patches(self.grouped(x)).mean((2, 3)))


@each
def test_shared_and_unused_parameters(make: Make) -> None:
    torch.manual_seed(0)
    model = Shared()
    method = make(model)
    loss = method.backward(F.cross_entropy, *batch(6, dtype=torch.float32))
    assert loss.isfinite()
    assert model.unused.weight.grad is None
    assert model.again.weight is model.grouped.weight
    assert model.again.weight.grad.abs().sum() > 0


@each
def test_not_a_number_is_reported_as_the_loss(make: Make) -> None:
    run = Run(make)
    x, y = batch(6, dtype=torch.float32)
    x[2] = float("nan")
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    assert run.method.backward(F.cross_entropy, x, y).isnan()
    assert equal({name: p.detach() for name, p in run.model.named_parameters()}, before)


@each
def test_odd_and_empty_batches(make: Make) -> None:
    run = Run(make)
    for count in (7, 5):
        assert run.step(0, count).isfinite()
    with pytest.raises(ValueError, match="the batch is empty"):
        run.step(0, 0)


@each
def test_mixed_labels(make: Make) -> None:
    """Targets may be class probabilities, as MixUp makes them."""
    x, y = batch(6, dtype=torch.float32)
    hard, soft = Run(make), Run(make)
    expected = hard.method.backward(F.cross_entropy, x, y)
    loss = soft.method.backward(F.cross_entropy, x, F.one_hot(y, 3).float())
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(soft.model), gradients(hard.model))


@each
def test_autocast_and_scaled_loss(make: Make) -> None:
    """bfloat16, and float16 with a GradScaler, whose scaled loss the criterion returns."""
    full, lower, half, scaled = (Run(make) for _ in range(4))
    x, y = batch(6, dtype=torch.float32)
    full.method.backward(F.cross_entropy, x, y)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def scaled_loss(logits: Tensor, y: Tensor) -> Tensor:
        return scaler.scale(F.cross_entropy(logits, y))

    with torch.autocast("cpu", torch.bfloat16):
        loss = lower.method.backward(F.cross_entropy, x, y)
    assert loss.isfinite()
    with torch.autocast("cpu", torch.float16):
        half.method.backward(scaled_loss, x, y)
    scaler.unscale_(half.optimizer)
    scale = max(g.abs().max() for g in gradients(full.model).values())
    for run in (lower, half):
        for name, g in gradients(run.model).items():  # a unit that rounding switches on or off shows
            assert g.dtype == torch.float32
            assert (g - gradients(full.model)[name]).abs().max() < 0.15 * scale
    scaled.method.backward(scaled_loss, x, y)
    scaler.unscale_(scaled.optimizer)
    torch.testing.assert_close(gradients(scaled.model), gradients(full.model), rtol=1e-3, atol=1e-5)
    scaler.step(scaled.optimizer)


@pytest.mark.parametrize("make", [METHODS["damp"], METHODS["sam"]], ids=["damp", "sam"])
def test_compile(make: Make) -> None:
    """Same gradients, and nothing is compiled again in later steps."""
    torch._dynamo.reset()
    plain, compiled = mixed(), torch.compile(mixed(), backend="aot_eager")
    methods = make(plain), make(compiled)
    frames = []
    for number in range(3):
        torch._dynamo.utils.counters.clear()
        for method in methods:
            method.backward(F.cross_entropy, *batch(6, number))
        frames.append(torch._dynamo.utils.counters["stats"].get("unique_graphs", 0))
    assert frames[0] >= 1
    assert frames[1:] == [0, 0]
    ours = {name.removeprefix("_orig_mod."): g for name, g in gradients(compiled).items()}
    torch.testing.assert_close(ours, gradients(plain))


def test_two_processes_are_one(tmp_path: Any) -> None:
    torch.multiprocessing.spawn(two_processes.check, (str(tmp_path / "rendezvous"),), nprocs=2)
