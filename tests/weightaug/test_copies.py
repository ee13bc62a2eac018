"""The stacked forward pass against one pass per sub-batch, and against the plain model."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import batch, mixed
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig

from weightaug import StackingError, WeightCopies

SPLITS = st.integers(1, 4).flatmap(lambda m: st.tuples(st.just(m), st.integers(m, 9)))


def different_copies(model: nn.Module, count: int, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {
        name: (p.detach() + 0.1 * torch.randn(count, *p.shape, dtype=p.dtype)).requires_grad_()
        for name, p in model.named_parameters()
    }


def run(copies: WeightCopies, weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The outputs, and every copy's gradient of a loss that weighs all of them differently."""
    output = copies.forward(weights, x)
    factors = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    gradients = torch.autograd.grad((output * factors).sum(), list(weights.values()), allow_unused=True)
    return output, [
        torch.zeros_like(w) if g is None else g for g, w in zip(gradients, weights.values(), strict=True)
    ]


def assert_stacked_equals_loop(model: nn.Module, m: int, x: Tensor, **options: Any) -> None:
    """Same outputs, gradients and buffers; and the stacked pass was indeed one pass."""
    start = {name: buffer.clone() for name, buffer in model.named_buffers()}
    results = []
    for stacked in (True, False):
        for name, buffer in model.named_buffers():
            buffer.copy_(start[name])
        copies = WeightCopies(model, m, stacked=stacked, **options)
        output, gradients = run(copies, different_copies(model, m), x)
        results.append([output, *gradients, *(b.clone() for b in model.buffers())])
        assert copies.stacked is stacked
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-10)


@settings(max_examples=12, deadline=None)
@given(
    SPLITS,
    st.sampled_from(["no BatchNorm", "separate", "evaluation"]),
    st.sampled_from(["biased", "unbiased"]),
)
def test_stacked_equals_loop(split: tuple[int, int], norm: str, variance: str) -> None:
    m, n = split
    model = mixed(batch_norm=norm != "no BatchNorm").train(norm != "evaluation")
    sync = "separate" if norm == "separate" else "synchronised"
    assert_stacked_equals_loop(model, m, batch(n)[0], batch_norm=sync, running_variance=variance)


class Tokens(nn.Module):
    """Layers on tokens: embedding, RMSNorm, attention with every option, a repeated class token."""

    def __init__(self, options: dict[str, Any], call: dict[str, Any], context: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8, padding_idx=0)
        self.norm = nn.RMSNorm(8)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)
        self.call, self.context = call, context

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embedding(x))
        x = torch.cat([self.token.repeat(len(x), 1, 1), x], dim=1)
        other = torch.cat([x, x], dim=1)[..., : self.attention.kdim] if self.context else x
        call = {key: make(x) for key, make in self.call.items()}
        y, attention = self.attention(x, other, other, **call)
        return y if attention is None else torch.cat([y.flatten(1), attention.flatten(1)], dim=1)


def padding(x: Tensor) -> Tensor:
    mask = x[..., 0] > 0
    mask[:, 0] = False  # something must be left to attend to
    return mask


ATTENTIONS: list[tuple[dict[str, Any], dict[str, Callable[[Tensor], Any]], bool]] = [
    ({}, {}, False),
    ({}, {"need_weights": lambda x: False}, False),
    ({"bias": False}, {"need_weights": lambda x: False}, False),
    ({}, {"key_padding_mask": padding}, False),
    ({}, {"attn_mask": lambda x: torch.ones(x.shape[1], x.shape[1]).tril() == 0}, False),
    (
        {},
        {"attn_mask": lambda x: padding(x)[:, None].repeat_interleave(2, 0).repeat(1, x.shape[1], 1)},
        False,
    ),
    ({"add_bias_kv": True, "add_zero_attn": True}, {}, False),
    ({}, {}, True),
    ({"kdim": 4, "vdim": 4}, {}, True),
]


@pytest.mark.parametrize(("options", "call", "context"), ATTENTIONS)
@pytest.mark.parametrize("n", [6, 5])
def test_attention_and_embedding(options: Any, call: Any, context: bool, n: int) -> None:
    torch.manual_seed(0)
    assert_stacked_equals_loop(Tokens(options, call, context).double(), 2, torch.randint(11, (n, 4)))


@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.Conv1d(3, 4, 3), (3, 9)),
        (lambda: nn.Conv3d(3, 4, 2, bias=False), (3, 3, 3, 3)),
        (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=1), (3, 4, 4)),
        (
            lambda: nn.Sequential(
                nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 2, bias=False)
            ),
            (3,),
        ),
        (
            lambda: nn.Sequential(nn.BatchNorm3d(3), nn.Flatten(), nn.LayerNorm([24], bias=False)),
            (3, 2, 2, 2),
        ),
        (lambda: nn.GroupNorm(1, 3), (3, 5)),
        (lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), (4, 8)),
    ],
)
def test_other_layers(layer: Callable[[], nn.Module], shape: tuple[int, ...], n: int) -> None:
    torch.manual_seed(0)
    assert_stacked_equals_loop(layer().double(), 3, torch.randn(n, *shape).double(), batch_norm="separate")


@pytest.mark.parametrize(
    "build",
    [
        lambda: torchvision.models.ShuffleNetV2([1, 1, 1], [8, 8, 16, 32, 32], 3),
        lambda: torchvision.models.VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=3),
        lambda: torchvision.models.ConvNeXt(
            [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=3
        ),
        lambda: torchvision.models.MobileNetV2(3, width_mult=0.25),
        lambda: torchvision.models.DenseNet(4, (2, 2), 8, num_classes=3),
        lambda: torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=3),
        lambda: torchvision.models.MaxVit((32, 32), 8, 4, [8, 8], [1, 1], 4, 0.0, num_classes=3),
    ],
)
def test_torchvision_unchanged(build: Callable[[], nn.Module]) -> None:
    """In evaluation mode, for dropout and stochastic depth draw differently in one pass and in several."""
    torch.manual_seed(0)
    assert_stacked_equals_loop(build().double().eval(), 2, torch.randn(2, 3, 32, 32).double())


@settings(max_examples=12, deadline=None)
@given(SPLITS, st.sampled_from(["biased", "unbiased"]))
def test_identical_copies_are_the_plain_model(split: tuple[int, int], variance: str) -> None:
    """With synchronised BatchNorm in training, also where the sub-batches differ in size."""
    m, n = split
    n = max(n, 2)
    (x, y), plain, copied = batch(n), mixed(), mixed()
    loss = F.cross_entropy(plain(x), y)
    loss.backward()
    weights = {name: p.expand(m, *p.shape) for name, p in copied.named_parameters()}
    ours = F.cross_entropy(WeightCopies(copied, m, running_variance=variance).forward(weights, x), y)
    ours.backward()
    torch.testing.assert_close(ours, loss, rtol=1e-12, atol=0)
    for p, reference in zip(copied.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, reference.grad, rtol=1e-9, atol=1e-12)
    count = n * 64
    biased = 0.9 + (plain.norm.running_var - 0.9) * (count - 1) / count
    expected = biased if variance == "biased" else plain.norm.running_var
    torch.testing.assert_close(copied.norm.running_var, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(copied.norm.running_mean, plain.norm.running_mean, rtol=1e-12, atol=0)
    assert copied.norm.num_batches_tracked == 1


@settings(max_examples=6, deadline=None)
@given(st.permutations(range(3)), st.booleans())
def test_permuting_sub_batches_permutes_copies(order: list[int], batch_norm: bool) -> None:
    model, (x, _) = mixed(batch_norm=batch_norm), batch(6)
    weights = different_copies(model, 3)
    plain = WeightCopies(model, 3).forward(weights, x)
    moved = {name: weight[order] for name, weight in weights.items()}
    permuted = WeightCopies(model, 3).forward(moved, x.view(3, 2, 3, 8, 8)[order].flatten(0, 1))
    torch.testing.assert_close(permuted, plain.view(3, 2, -1)[order].flatten(0, 1), rtol=1e-10, atol=1e-12)


def test_only_given_parameters_are_stacked() -> None:
    model, (x, _) = mixed(), batch(4)
    weights = {
        name: w for name, w in different_copies(model, 2).items() if "stem" in name or "head.bias" in name
    }
    full = {name: weights.get(name, p.expand(2, *p.shape)) for name, p in model.named_parameters()}
    torch.testing.assert_close(
        WeightCopies(model, 2).forward(weights, x), WeightCopies(model, 2).forward(full, x)
    )


@pytest.mark.parametrize("options", [{"momentum": None}, {"track_running_stats": False}, {"affine": False}])
@pytest.mark.parametrize("variance", ["biased", "unbiased"])
@pytest.mark.parametrize("sync", ["synchronised", "separate"])
def test_batch_norm_options(options: dict[str, Any], variance: str, sync: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, **options)).double()
    copies = WeightCopies(model, 2, sync, variance)
    weights = {name: p.expand(2, *p.shape) for name, p in model.named_parameters()}
    seen = []
    for step in range(2):
        x, _ = batch(4, step)
        y = model[0](x) if sync == "synchronised" else model[0](x[:2])
        seen.append((y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=variance == "unbiased")))
        assert copies.forward(weights, x).shape == (4, 4, 8, 8)
    if "track_running_stats" in options:
        assert not list(model.buffers())
    elif "momentum" in options:  # the plain average over the steps
        torch.testing.assert_close(model[1].running_mean, (seen[0][0] + seen[1][0]) / 2)
        torch.testing.assert_close(model[1].running_var, (seen[0][1] + seen[1][1]) / 2)
    else:
        torch.testing.assert_close(model[1].running_var, 0.81 + 0.09 * seen[0][1] + 0.1 * seen[1][1])


@pytest.mark.parametrize("m", [1, 2])
@pytest.mark.parametrize("stacked", [True, False])
def test_statistics_can_be_kept(m: int, stacked: bool) -> None:
    model, (x, _) = mixed(), batch(4)
    before = [buffer.clone() for buffer in model.buffers()]
    copies = WeightCopies(model, m, "separate", "biased", stacked=stacked)
    copies.forward(different_copies(model, m), x, keep_statistics=True)
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    copies.forward(different_copies(model, m), x)
    assert not torch.equal(before[0], model.norm.running_mean)


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


@pytest.mark.parametrize(("low", "allowed"), [(torch.bfloat16, 0.02), (torch.float16, 0.002)])
def test_autocast_types_are_the_plain_models(low: torch.dtype, allowed: float) -> None:
    """Of every activation, while the numbers stay those of full precision up to rounding."""
    model, x = mixed(dtype=torch.float32), batch(6, dtype=torch.float32)[0]
    seen: list[torch.dtype] = []
    for module in model.children():
        module.register_forward_hook(lambda module, args, out: seen.append(getattr(out, "dtype", low)))
    weights, copies = different_copies(model, 2), WeightCopies(model, 2)
    full = copies.forward(weights, x)
    seen.clear()
    with torch.autocast("cpu", low):
        model(x)
        plain = list(seen)
        seen.clear()
        output = copies.forward(weights, x)
    assert seen == plain
    assert (output - full).abs().max() < allowed * full.abs().max()


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sub_batches": 0}, "sub_batches=0: at least one"),
        ({"batch_norm": "synced"}, "unknown batch_norm 'synced'; use synchronised or separate"),
        ({"running_variance": "flax"}, "unknown running_variance 'flax'; use unbiased or biased"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightCopies(mixed(), **options)


def test_sync_batch_norm_is_refused() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(mixed())
    with pytest.raises(ValueError, match="use BatchNorm, or one sub-batch per process"):
        WeightCopies(model, 2)
    assert len(WeightCopies(model, 1)) == 1


def test_sub_batches() -> None:
    copies = WeightCopies(mixed(), 3)
    assert [copies.sizes(n) for n in (3, 8, 9)] == [[1, 1, 1], [3, 3, 2], [3, 3, 3]]
    with pytest.raises(ValueError, match="a batch of 2 cannot be split into 3 sub-batches"):
        copies.sizes(2)
