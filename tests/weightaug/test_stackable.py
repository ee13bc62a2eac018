"""Which models can be stacked: what models do with their weights, and what is found out before the first step."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_networks import batch, mixed
from stacked_copies import assert_stacked_equals_loop, different_copies
from torch import Tensor, nn

from weightaug import StackingError, WeightCopies


class Unusual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.weight = nn.Parameter(torch.rand(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("ni,io->no", self.norm(x).mean((2, 3)), self.weight)


def test_unknown_function_means_one_pass_per_sub_batch() -> None:
    x, model, reference = batch(4)[0], Unusual().double(), Unusual().double()
    reference.load_state_dict(model.state_dict())
    copies = WeightCopies(model, 2, "separate")
    weights = different_copies(model, 2)
    with pytest.warns(
        UserWarning, match="einsum has no form for stacked weight copies; running the model once"
    ):
        output = copies.forward(weights, x)
    torch.testing.assert_close(
        output, WeightCopies(reference, 2, "separate", stacked=False).forward(weights, x)
    )
    for ours, expected in zip(model.buffers(), reference.buffers(), strict=True):
        assert torch.equal(ours, expected)  # the pass that failed has left nothing
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copies.forward(weights, x)


def test_unknown_function_cannot_synchronise() -> None:
    model = Unusual().double()
    with pytest.raises(StackingError, match=r"einsum .* use batch_norm='separate' or sub_batches=1"):
        WeightCopies(model, 2).forward(different_copies(model, 2), batch(4)[0])


class BatchSecond(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(0, 1)).mean(0)


def test_attention_with_the_batch_second_is_not_stacked() -> None:
    """As many tokens as examples: shapes alone could not tell."""
    torch.manual_seed(0)
    model, x = BatchSecond().double(), torch.randn(4, 4, 8).double()
    weights = different_copies(model, 2)
    with pytest.warns(UserWarning, match="the sub-batches mix"):
        output = WeightCopies(model, 2).forward(weights, x)
    own = [{name: w[m] for name, w in weights.items()} for m in range(2)]
    expected = [torch.func.functional_call(model, own[m], (x[2 * m : 2 * m + 2],)) for m in range(2)]
    torch.testing.assert_close(output, torch.cat(expected))


class Constant(nn.Module):
    def __init__(self, use: Callable[[Tensor, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(*shape))
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x, self.weight)


CONSTANT = torch.rand(3, 3).double()


@pytest.mark.parametrize(
    ("use", "shape"),
    [
        (lambda x, w: x + w * w, (3,)),
        (lambda x, w: x * (2 * w).relu(), (3,)),
        (lambda x, w: x + w.expand(3, 3)[0], (1, 3)),
        (lambda x, w: x + torch.cat([w, CONSTANT])[:1], (1, 3)),
        (lambda x, w: F.linear(x, w * CONSTANT), (3, 3)),
        (lambda x, w: F.linear(x, F.softmax(w, 1).T.reshape(3, 3)), (3, 3)),
        (lambda x, w: F.linear(x, F.batch_norm(w, None, None, training=True)), (3, 3)),
        (lambda x, w: F.linear(x, F.relu(F.linear(CONSTANT, w), inplace=True)), (3, 3)),
        (lambda x, w: x * sum(part.sum() for part in w.chunk(2)) * w.dim(), (4,)),
        (lambda x, w: torch.addcmul(w.view(1, 3), x, w[None]), (3,)),
        (lambda x, w: x.clone().mul_(w).add_(w), (3,)),
        (lambda x, w: F.scaled_dot_product_attention(*[x[:, None]] * 3, w), (1, 1)),
    ],
)
def test_functions_of_weights_alone(use: Any, shape: tuple[int, ...]) -> None:
    """Constants may take part: no axis of theirs is the batch of 4 or 5."""
    for n in (4, 5):
        assert_stacked_equals_loop(Constant(use, *shape).double(), 2, torch.rand(n, 3).double())


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda x, w: torch.einsum("nti,i->nti", x, w), "einsum has no form for stacked weight copies"),
        (
            lambda x, w: x * float(w.detach().sum()),
            "a number taken from the weights differs between the copies",
        ),
        (lambda x, w: x + w.clone().zero_(), "zero_ changes stacked weight copies in place"),
        (lambda x, w: x.transpose(0, 1).mul(w).transpose(0, 1), "stacked, the sub-batches mix"),
        (lambda x, w: x + F.embedding(torch.arange(4) % 3, w[:, None]).sum(), "stacked, the sub-batches mix"),
    ],
)
def test_unclear_uses_of_parameters_are_not_stacked(use: Any, message: str) -> None:
    """The first pass finds out, though the copies that it is given are equal."""
    model, x = Constant(use, 3).double(), torch.rand(4, 4, 3).double()
    weights = {"weight": model.weight.detach().expand(2, 3).clone()}
    with pytest.warns(UserWarning, match=f"{message}.*; running the model once per sub-batch"):
        output = WeightCopies(model, 2).forward(weights, x)
    assert torch.equal(output, WeightCopies(model, 2, stacked=False).forward(weights, x))


class Positions(nn.Module):
    """A vector for each place: a table of as many rows as there are tokens, no matter how many examples."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(11, 4), nn.Embedding(8, 4)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.words(x) + self.places(torch.arange(x.shape[1]))).mean(1))


def test_every_shape_is_checked() -> None:
    """Five places are a constant for four examples; four places look like four examples."""
    torch.manual_seed(0)
    model = Positions().double()
    weights, copies = different_copies(model, 2), WeightCopies(model, 2)
    for places, stacked in ((5, True), (4, False)):
        x = torch.randint(11, (4, places))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            output = copies.forward(weights, x)
        assert copies.stacked is stacked
        assert len(caught) == (not stacked)
        torch.testing.assert_close(output, WeightCopies(model, 2, stacked=False).forward(weights, x))


class Cached(nn.Module):
    """Keeps what it made of its weights from one evaluation to the next, as attention biases are in LeViT."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3))
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return x * self.weight.exp()
        self.kept = self.kept or [self.weight.exp()]
        return x * self.kept[0]


def test_the_check_leaves_the_model_alone() -> None:
    model, (x, _) = mixed(), batch(4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cached = Cached().double()
    for each, inputs in ((model, x), (cached, x[..., :3])):
        copies = WeightCopies(each, 2)
        assert copies._disproof(different_copies(each, 2), inputs, copies.sizes(4)) is None
        assert all(module.training for module in each.modules())
    assert not cached.kept
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_check_draws_no_random_numbers() -> None:
    model = Constant(lambda x, w: F.dropout(x * w), 3)  # in evaluation too
    copies, weights = WeightCopies(model, 2), different_copies(model, 2)
    x, state = torch.rand(4, 3), torch.get_rng_state()
    assert "the sub-batches mix" in (copies._disproof(weights, x, [2, 2]) or "")
    assert torch.equal(torch.get_rng_state(), state)


class Two(nn.Module):
    def __init__(self, use: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3))
        self.use = use

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"plain": x, "others": (x + self.weight, self.use(x, self.weight))}


@pytest.mark.parametrize("use", [lambda x, w: x * w, lambda x, w: torch.einsum("nti,i->nti", x, w)])
@pytest.mark.filterwarnings("ignore:einsum has no form")
def test_outputs_may_be_several(use: Any) -> None:
    model, x = Two(use).double(), torch.rand(4, 2, 3).double()
    weights = different_copies(model, 2)
    output = WeightCopies(model, 2).forward(weights, x)
    factors = weights["weight"].repeat_interleave(2, 0)[:, None]
    torch.testing.assert_close(output, {"plain": x, "others": (x + factors, x * factors)})


def test_errors_of_the_model_are_its_own() -> None:
    """Not hidden behind one that says how to run it once per sub-batch."""
    model = mixed()
    with pytest.raises(RuntimeError, match="channels"):
        WeightCopies(model, 2).forward(different_copies(model, 2), batch(4)[0][:, :2])


def test_a_model_that_cannot_be_copied_is_not_stacked() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    model.lock = threading.Lock()
    with pytest.warns(UserWarning, match=r"cannot be deep-copied to check the stacked pass .*lock"):
        WeightCopies(model, 2).forward(different_copies(model, 2), torch.rand(4, 3))


def test_a_parameter_for_the_whole_batch_is_an_error() -> None:
    model = Constant(lambda x, w: x + w, 4, 3).double()
    with pytest.raises(RuntimeError, match="must match"):
        WeightCopies(model, 2).forward(different_copies(model, 2), torch.rand(4, 3).double())


@pytest.mark.parametrize(
    "use", [lambda x, w: w * x, lambda x, w: x - w, lambda x, w: w - x, lambda x, w: x / w]
)
def test_bare_parameters(use: Any) -> None:
    assert_stacked_equals_loop(Constant(use, 3).double(), 2, torch.rand(5, 2, 3).double())
    assert_stacked_equals_loop(Constant(use, 1, 2, 3).double(), 2, torch.rand(6, 2, 3).double())


def test_models_may_ask_and_cast_their_weights() -> None:
    def use(x: Tensor, w: Tensor) -> Tensor:
        assert w.shape == (2, 3)
        assert w.requires_grad
        assert w.device == x.device
        return F.linear(x.to(w.dtype), w.to(torch.float32).contiguous()) + F.linear(x, w.detach().type_as(x))

    assert_stacked_equals_loop(Constant(use, 2, 3), 2, torch.rand(4, 3))
    assert_stacked_equals_loop(
        Constant(lambda x, w: F.linear(x, w) if w.is_floating_point() else x, 2, 3), 2, torch.rand(4, 3)
    )
