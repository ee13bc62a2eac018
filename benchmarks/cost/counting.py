"""What a network costs: parameters and multiply-adds by two counters, and the passes of a training step.

A MAC is one multiplication with its addition; FLOPs = 2 MACs. fvcore counts MACs and calls them flops.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from weightaug import Criterion, Method

with warnings.catch_warnings():  # fvcore still decorates with torch.jit.script
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import get_shape

MULTIPLY_ADDS = ("conv", "linear", "addmm", "mm", "bmm", "matmul", "einsum", "attention")
"""The operators of fvcore whose count is a number of MACs. Its other counts (normalisation, pooling,
resizing: a few operations per element) are kept apart."""

OF_WEIGHTS = ("conv", "linear", "addmm")
"""Those of them that multiply by weights. A network that has others as well multiplies activations by each other."""


@dataclass(frozen=True)
class Cost:
    """The cost of one forward pass of one input, in inference mode."""

    parameters: int
    """Numbers that are learned."""
    macs: int
    """fvcore's multiply-adds of convolutions, linear layers, matrix products and attention."""
    flops: int
    """``2 * macs``."""
    torch_flops: int
    """The same by ``torch.utils.flop_counter``, which counts two for a multiply-add."""
    relative_difference: float
    """``(flops - torch_flops) / torch_flops``."""
    partings: dict[str, tuple[int, int]]
    """Where the counters differ, if they do: the innermost modules, each with its (flops, torch_flops)."""
    macs_by_operator: dict[str, int]
    """``macs`` by fvcore's name of the operator; ``attention`` is the fused one, ``matmul`` and ``bmm`` others."""
    macs_by_module: dict[str, int]
    """``macs`` by module, that of the modules inside it included; "" is the whole network."""
    other_operations: dict[str, int]
    """What else fvcore counts, not in ``macs``: batch_norm, layer_norm, adaptive_avg_pool2d, ..."""
    uncounted_operators: dict[str, int]
    """Operators that fvcore saw and has no formula for, and how often."""
    uncalled_modules: tuple[str, ...]
    """Modules that were never called. Their parameters may still be used, as those of
    ``nn.MultiheadAttention``'s out_proj are."""

    @property
    def tolerance(self) -> float:
        """How far the counters may differ: 0.01, or 0.02 for a transformer."""
        return 0.01 if self.macs_by_operator.keys() <= set(OF_WEIGHTS) else 0.02

    def agree(self, tolerance: float | None = None) -> bool:
        """Whether the two counters agree within ``tolerance``, by default that of the kind of network."""
        return abs(self.relative_difference) <= (self.tolerance if tolerance is None else tolerance)


def count(model: nn.Module, input_shape: tuple[int, ...]) -> Cost:
    """Count one forward pass of ``model`` on one input of ``input_shape`` [C, H, W], e.g. (3, 32, 32).

    The model is as before afterwards: weights, buffers, gradients and every module's training flag.
    """
    weight = next(model.parameters())
    x = torch.zeros(1, *input_shape, dtype=weight.dtype, device=weight.device)
    with _undisturbed(model), torch.no_grad(), _attention_visible():
        model.eval()
        analysis = FlopCountAnalysis(model, x)
        analysis.set_op_handle(
            **{"aten::scaled_dot_product_attention": _attention, "aten::baddbmm": _baddbmm}
        )
        analysis.tracer_warnings("none").unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        operators = analysis.by_operator()
        with FlopCounterMode(display=False) as counter, _calls(model) as called:
            model(x)
    by_module = {name: _multiply_adds(each) for name, each in analysis.by_module_and_operator().items()}
    root, torch_flops = type(model).__name__, counter.get_total_flops()
    theirs = {
        name.removeprefix(root).lstrip("."): sum(per_operator.values())
        for name, per_operator in counter.get_flop_counts().items()
        if name != "Global"
    }
    macs = _multiply_adds(operators)
    return Cost(
        parameters=sum(p.numel() for p in model.parameters()),
        macs=macs,
        flops=2 * macs,
        torch_flops=torch_flops,
        relative_difference=(2 * macs - torch_flops) / torch_flops if torch_flops else math.nan,
        partings={} if 2 * macs == torch_flops else _partings(by_module, theirs),
        macs_by_operator={name: int(n) for name, n in sorted(operators.items()) if name in MULTIPLY_ADDS},
        macs_by_module=by_module,
        other_operations={name: int(n) for name, n in sorted(operators.items()) if name not in MULTIPLY_ADDS},
        uncounted_operators=dict(sorted(analysis.unsupported_ops().items())),
        uncalled_modules=_uncalled(model, called),
    )


def _multiply_adds(by_operator: dict[str, float]) -> int:
    return int(sum(n for name, n in by_operator.items() if name in MULTIPLY_ADDS))


def _partings(macs: dict[str, int], flops: dict[str, int]) -> dict[str, tuple[int, int]]:
    """The modules whose FLOPs differ while those of no module inside them do, as (2 * macs, flops)."""
    differ = {name for name in macs.keys() & flops.keys() if 2 * macs[name] != flops[name]}
    inner = [name for name in differ if not any(n != name and n.startswith(f"{name}.") for n in differ)]
    inner = [name for name in inner if name or len(differ) == 1]
    return {name: (2 * macs[name], flops[name]) for name in sorted(inner)}


@contextmanager
def _calls(model: nn.Module) -> Iterator[set[nn.Module]]:
    """The modules that are called inside the context."""
    called: set[nn.Module] = set()
    handles = [
        module.register_forward_pre_hook(lambda module, _: called.add(module)) for module in model.modules()
    ]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()


def _uncalled(model: nn.Module, called: set[nn.Module]) -> tuple[str, ...]:
    """Names of the modules that could have been called, lists of modules thus left out, and were not."""
    modules = [(name, module) for name, module in model.named_modules() if module not in called]
    return tuple(name for name, module in modules if type(module).forward is not nn.Module.forward)


def _attention(inputs: list[Any], outputs: list[Any]) -> dict[str, int]:
    """MACs of softmax(q k') v for q [..., L, E], k [..., S, E], v [..., S, V]: L S (E + V) per matrix."""
    *batch, length, width = get_shape(inputs[0])
    source, out_width = get_shape(inputs[2])[-2:]
    return {"attention": math.prod(batch) * length * source * (width + out_width)}


def _baddbmm(inputs: list[Any], outputs: list[Any]) -> dict[str, int]:
    """MACs of c + a b for a [B, N, K] and b [B, K, M]: B N K M."""
    return {"bmm": math.prod(get_shape(inputs[1])) * get_shape(inputs[2])[-1]}


@contextmanager
def _attention_visible() -> Iterator[None]:
    """No fused kernels: attention as matrix products, which both counters see, forwards and backwards."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _undisturbed(model: nn.Module, *more: nn.Parameter) -> Iterator[None]:
    """Puts back the training flags, the buffers, the gradients and torch's random state."""
    training = {module: module.training for module in model.modules()}
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    gradients = [(p, p.grad) for p in (*model.parameters(), *more)]
    for parameter, _ in gradients:
        parameter.grad = None
    devices = {p.device for p, _ in gradients if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        for module, flag in training.items():
            module.training = flag
        with torch.no_grad():
            for module, name, buffer, value in buffers:
                setattr(module, name, buffer.copy_(value))
        for parameter, gradient in gradients:
            parameter.grad = gradient


@dataclass(frozen=True)
class TrainingCost:
    """The FLOPs of one training step of a method, measured while it runs, beside those of a plain step."""

    forward_flops: int
    backward_flops: int
    plain_forward_flops: int
    """A plain step: one forward and one backward pass of the same mini-batch."""
    plain_backward_flops: int

    @property
    def forward_passes(self) -> float:
        """Forward work in units of a plain step's."""
        return self.forward_flops / self.plain_forward_flops

    @property
    def backward_passes(self) -> float:
        """Backward work in units of a plain step's."""
        return self.backward_flops / self.plain_backward_flops

    @property
    def passes(self) -> float:
        """All the work in units of a plain step's: 1 for SGD, 2 for SAM."""
        plain = self.plain_forward_flops + self.plain_backward_flops
        return (self.forward_flops + self.backward_flops) / plain


def training_cost(method: Method, criterion: Criterion, x: Tensor, y: Tensor) -> TrainingCost:
    """Measure one step of ``method`` on the mini-batch (x, y).

    Method and model are as before afterwards: step, gradients, buffers. Counted are convolutions and matrix
    products; the criterion and element-wise work, such as drawing noise, are not.
    """
    model = method.model

    def plain() -> None:
        criterion(model(x), y).backward()

    step = method.state_dict()
    try:
        # A method's first step on a new shape also checks its stacked pass, which is no part of its cost.
        _measure(model, method, lambda: method.backward(criterion, x, y))
        method.load_state_dict(step)
        forward, backward = _measure(model, method, lambda: method.backward(criterion, x, y))
    finally:
        method.load_state_dict(step)
    return TrainingCost(forward, backward, *_measure(model, method, plain))


def measured_passes(method: Method, criterion: Criterion, x: Tensor, y: Tensor) -> float:
    """:attr:`TrainingCost.passes` of ``method`` on the mini-batch (x, y): SGD 1, SAM 2."""
    return training_cost(method, criterion, x, y).passes


def _measure(model: nn.Module, method: Method, step: Callable[[], object]) -> tuple[int, int]:
    """(forward, backward) FLOPs of ``step``."""
    with _undisturbed(model, *method.parameters()), _attention_visible(), _PassCounter() as counter:
        model.train()
        step()
    return counter.forward, counter.backward


class _PassCounter(TorchDispatchMode):
    """Adds up torch's own formulas, apart for what runs inside and outside of autograd's backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = 0
        self.backward = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        operator = func._overloadpacket
        if operator is torch.ops.aten.convolution_backward:
            self.backward += _conv_backward_flops(*args)
        elif operator in flop_registry:
            flops = flop_registry[operator](*args, **kwargs, out_val=out)
            if torch._C._current_graph_task_id() == -1:
                self.forward += flops
            else:
                self.backward += flops
        return out


def _conv_backward_flops(grad_out: Tensor, x: Tensor, weight: Tensor, *options: Any) -> int:
    """One forward pass's FLOPs for each of the gradients of input and weight that is asked for.

    torch's own formula (as of 2.11) counts the weight gradient of a grouped convolution once per group, which
    would make M stacked weight copies cost M times what they do.
    """
    transposed, (input_wanted, weight_wanted, _) = options[4], options[7]
    points = x if transposed else grad_out
    return 2 * points.numel() * weight[0].numel() * (int(input_wanted) + int(weight_wanted))
