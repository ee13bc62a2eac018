"""How single torch functions run with M stacked weight copies.

Activations keep their ordinary layout, batch first: copy m owns the contiguous rows of sub-batch m. Weights
are stacks [M, *shape]. Elementwise functions, pooling and reshaping therefore need nothing; only the
functions that take weights are replaced, by a :class:`torch.overrides.TorchFunctionMode`, so that models stay
untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode


class StackingError(RuntimeError):
    """A function got stacked weights and is not known to handle them.

    No TypeError: Python's operators would replace one by their own "unsupported operand".
    """


def mark_stacks(weights: Iterable[Tensor]) -> None:
    """Mark tensors [M, *shape] as stacks of weight copies, in place."""
    for weight in weights:
        weight.is_weight_stack = True  # type: ignore[attr-defined]


def is_stack(value: Any) -> bool:
    # An attribute, because torch.compile can trace it without a guard on the tensor's identity. Views and
    # results of other functions do not inherit it.
    return getattr(value, "is_weight_stack", False)


def any_stack(values: Iterable[Any]) -> bool:
    for value in values:
        if isinstance(value, list | tuple):
            if any_stack(value):
                return True
        elif is_stack(value):
            return True
    return False


class StackedForward(TorchFunctionMode):
    """While active, functions that take weights accept stacks of them; all other tensors are shared.

    Args:
        sizes: the sub-batches' sizes, M integers.
        batch_norm: ``"synchronised"`` pools the training statistics over all sub-batches (and differentiates
            through the pooling), ``"separate"`` lets every sub-batch normalise alone and keeps the running
            statistics of copy 0.
        running_variance: ``"unbiased"`` as PyTorch keeps it, ``"biased"`` as Flax does.
    """

    def __init__(self, sizes: Sequence[int], batch_norm: str, running_variance: str) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.copies = len(self.sizes)
        self.even = len(set(self.sizes)) == 1
        self.separate = batch_norm == "separate" and self.copies > 1
        self.biased = running_variance == "biased"

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return _batch_norm(self, *args, **kwargs)
        # A compiled model calls aten's operators, for which its stacks have been unfolded while tracing.
        if isinstance(func, OpOverload) or not any_stack((*args, *kwargs.values())):
            return func(*args, **kwargs)
        handler = HANDLERS.get(func)
        if handler is None:
            raise StackingError(f"{getattr(func, '__name__', func)} has no form for stacked weight copies")
        return handler(self, func, *args, **kwargs)

    def row_counts(self, x: Tensor) -> list[int]:
        """Rows of ``x`` that belong to each copy; windows or tokens may be merged into the batch axis."""
        multiple, rest = divmod(x.shape[0], sum(self.sizes)) if x.dim() else (0, 1)
        if rest or not multiple:
            raise StackingError(
                f"an activation of shape {tuple(x.shape)} does not have the batch as first axis"
            )
        return [multiple * size for size in self.sizes]

    def rows(self, stack: Tensor, counts: Sequence[int]) -> Tensor:
        """Repeat each copy's entry for its rows: [M, *shape] -> [rows, *shape]."""
        if self.even:
            return stack.unsqueeze(1).expand(-1, counts[0], *stack.shape[1:]).flatten(0, 1)
        return torch.cat(
            [entry.expand(n, *entry.shape) for entry, n in zip(stack.unbind(), counts, strict=True)]
        )

    def stacked(self, weight: Tensor) -> Tensor:
        """``weight`` as a stack, if it is not one already."""
        return weight if is_stack(weight) else weight.expand(self.copies, *weight.shape)

    def copy_of(self, value: Any, m: int) -> Any:
        return value[m] if is_stack(value) else value

    def affine(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, trailing: int) -> Tensor:
        """``x * weight + bias`` per copy; the parameters' axes end ``trailing`` axes before the last of x."""

        def spread(stack: Tensor) -> Tensor:
            stack = self.stacked(stack).to(x.dtype)  # autocast's lower precision stays, as in one pass
            ahead = (1,) * (x.dim() - trailing - stack.dim())
            stack = stack.view(self.copies, *ahead, *stack.shape[1:], *(1,) * trailing)
            return self.rows(stack, counts)

        counts = self.row_counts(x)
        if weight is None:
            return x if bias is None else x + spread(bias)
        return x * spread(weight) if bias is None else torch.addcmul(spread(bias), x, spread(weight))


def _each_copy(mode: StackedForward, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Run ``func`` once per copy on the copy's rows of ``x``: right for every function, M launches."""
    outputs = []
    for m, part in enumerate(x.split(mode.row_counts(x))):
        own = [mode.copy_of(value, m) for value in args]
        outputs.append(func(part, *own, **{key: mode.copy_of(value, m) for key, value in kwargs.items()}))
    return torch.cat(outputs)


def _convolution(
    mode: StackedForward, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """One grouped convolution: [M*b, C, *S] -> [b, M*C, *S], M times as many groups, and back."""
    counts = mode.row_counts(input)
    if not mode.even:
        return _each_copy(
            mode, func, input, weight=weight, bias=bias,
            stride=stride, padding=padding, dilation=dilation, groups=groups,
        )  # fmt: skip
    if bias is not None:
        bias = mode.stacked(bias).flatten()
    x = input.unflatten(0, (mode.copies, counts[0])).transpose(0, 1).flatten(1, 2)
    y = func(x, mode.stacked(weight).flatten(0, 1), bias, stride, padding, dilation, groups * mode.copies)
    return y.unflatten(1, (mode.copies, -1)).transpose(0, 1).flatten(0, 1)


def _linear(
    mode: StackedForward, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """One batched matrix product: x [M, rows, in] times weight [M, out, in] transposed."""
    mode.row_counts(input)
    if not mode.even:
        return _each_copy(mode, func, input, weight=weight, bias=bias)
    x = input.reshape(mode.copies, -1, input.shape[-1])
    w = mode.stacked(weight).transpose(1, 2)
    y = torch.bmm(x, w) if bias is None else torch.baddbmm(mode.stacked(bias).unsqueeze(1), x, w)
    return y.view(*input.shape[:-1], y.shape[-1])


def _layer_norm(
    mode: StackedForward, func: Any, input: Tensor, normalized_shape: Any,
    weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    return mode.affine(func(input, normalized_shape, None, None, eps), weight, bias, trailing=0)


def _rms_norm(
    mode: StackedForward, func: Any, input: Tensor, normalized_shape: Any,
    weight: Tensor | None = None, eps: float | None = None,
) -> Tensor:  # fmt: skip
    return mode.affine(func(input, normalized_shape, None, eps), weight, None, trailing=0)


def _group_norm(
    mode: StackedForward, func: Any, input: Tensor, num_groups: int,
    weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    return mode.affine(func(input, num_groups, None, None, eps), weight, bias, trailing=input.dim() - 2)


def _batch_norm(
    mode: StackedForward, input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    def normalise(x: Tensor, mean: Any, var: Any, scale: Any, shift: Any) -> Tensor:
        if not (training and mode.biased and var is not None):
            return F.batch_norm(x, mean, var, scale, shift, training, momentum, eps)
        # PyTorch adds momentum * unbiased variance; in units where unbiased is biased it adds the biased one.
        n = x.numel() // x.shape[1]
        scaled = var * (n / max(n - 1, 1))
        y = F.batch_norm(x, mean, scaled, scale, shift, training, momentum, eps)
        var.copy_(scaled * ((n - 1) / n))
        return y

    if training and mode.separate:
        outputs = []
        for m, part in enumerate(input.split(mode.row_counts(input))):
            kept = (running_mean, running_var) if m == 0 else (None, None)
            outputs.append(normalise(part, *kept, mode.copy_of(weight, m), mode.copy_of(bias, m)))
        return torch.cat(outputs)
    if is_stack(weight) or is_stack(bias):
        x = normalise(input, running_mean, running_var, None, None)
        return mode.affine(x, weight, bias, trailing=input.dim() - 2)
    return normalise(input, running_mean, running_var, weight, bias)


def _attention(
    mode: StackedForward, func: Any, query: Tensor, key: Tensor, value: Tensor, width: int, heads: int,
    in_weight: Tensor | None, in_bias: Tensor | None, bias_k: Tensor | None, bias_v: Tensor | None,
    add_zero_attn: bool, dropout: float, out_weight: Tensor, out_bias: Tensor | None, **options: Any,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """``multi_head_attention_forward`` on query [L, N, E], key and value [S, N, E]: the batch is second."""
    rows = mode.row_counts(query.transpose(0, 1))
    masks = (options.get("key_padding_mask"), options.get("attn_mask"))
    plain = masks == (None, None) and not options.get("need_weights", True) and in_weight is not None
    if plain and mode.even and query is key is value and bias_k is None and not add_zero_attn:
        x = _linear(mode, F.linear, query.transpose(0, 1), in_weight, in_bias)  # type: ignore[arg-type]
        q, k, v = x.unflatten(-1, (3, heads, width // heads)).permute(2, 0, 3, 1, 4)
        dropout = dropout if options.get("training", True) else 0.0
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        x = _linear(mode, F.linear, x.transpose(1, 2).flatten(2), out_weight, out_bias)
        return x.transpose(0, 1), None

    weights = (in_weight, in_bias, bias_k, bias_v, add_zero_attn, dropout, out_weight, out_bias)
    outputs, maps = [], []
    start = 0
    for m, n in enumerate(rows):
        part = slice(start, start + n)
        own = {name: mode.copy_of(option, m) for name, option in options.items()}
        if masks[0] is not None:
            own["key_padding_mask"] = masks[0][part]
        if masks[1] is not None and masks[1].dim() == 3:
            own["attn_mask"] = masks[1][start * heads : (start + n) * heads]
        output, attention = func(
            query[:, part], key[:, part], value[:, part], width, heads,
            *(mode.copy_of(weight, m) for weight in weights), **own,
        )  # fmt: skip
        outputs.append(output)
        maps.append(attention)
        start += n
    return torch.cat(outputs, dim=1), None if maps[0] is None else torch.cat(maps)


def _elementwise(mode: StackedForward, func: Any, input: Any, other: Any, **kwargs: Any) -> Tensor:
    """An activation and a bare parameter (position embedding, layer scale), broadcast per copy."""
    operands = [input, other]
    stack, x = operands if is_stack(input) else operands[::-1]
    if is_stack(x) or not isinstance(x, Tensor):
        raise StackingError(f"{func.__name__} of a stacked parameter and no activation has no stacked form")
    missing = x.dim() - (stack.dim() - 1)
    if missing < 0 or (missing == 0 and stack.shape[1] != 1):
        raise StackingError(
            f"a parameter of shape {tuple(stack.shape[1:])} does not broadcast over the batch"
        )
    aligned = stack.view(mode.copies, *(1,) * missing, *stack.shape[1:]).squeeze(1)
    spread = mode.rows(aligned, mode.row_counts(x))
    return func(*(spread if is_stack(operand) else operand for operand in operands), **kwargs)


def _expand(mode: StackedForward, func: Any, stack: Tensor, *sizes: Any) -> Tensor:
    """``class_token.expand(batch, -1, -1)``: every copy's token for the copy's rows."""
    shape = tuple(sizes[0]) if isinstance(sizes[0], list | tuple) else sizes
    if stack.shape[1:2] != (1,) or len(shape) != stack.dim() - 1 or shape[0] != sum(mode.sizes):
        raise StackingError(f"{func.__name__} of a stacked parameter to {shape} is not over the batch")
    spread = mode.rows(stack.squeeze(1), mode.sizes)
    return spread.expand(*shape) if func is Tensor.expand else spread.repeat(1, *shape[1:])


def _shape(mode: StackedForward, func: Any, stack: Tensor) -> Any:
    return stack.shape[1:]


def _plain(mode: StackedForward, func: Any, *args: Any) -> Any:
    return func(*args)


def _still_stacked(mode: StackedForward, func: Any, stack: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    result = func(stack, *args, **kwargs)
    mark_stacks([result])
    return result


HANDLERS: dict[Any, Callable[..., Any]] = {
    F.conv1d: _convolution,
    F.conv2d: _convolution,
    F.conv3d: _convolution,
    F.linear: _linear,
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    F.multi_head_attention_forward: _attention,
    Tensor.expand: _expand,
    Tensor.repeat: _expand,
    Tensor._is_view: _plain,  # what a compiled model of torch 2.11 asks about its inputs
    Tensor.shape.__get__: _shape,  # type: ignore[attr-defined]
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), _each_copy),
    **dict.fromkeys((F.embedding, F.prelu), _each_copy),
    **dict.fromkeys(
        (Tensor.detach, Tensor.to, Tensor.type_as, Tensor.float, Tensor.contiguous), _still_stacked
    ),
    **{
        getattr(owner, name): _elementwise
        for owner in (torch, Tensor)
        for name in ("add", "sub", "mul", "div")
    },
    **{
        getattr(Tensor, name).__get__: _plain
        for name in ("dtype", "device", "requires_grad", "is_cuda", "layout")
    },
}
