"""How single torch functions run with M stacked weight copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from weightaug.stacked_convolution import convolution, each_copy
from weightaug.stacks import StackingError, SubBatches, is_stack, mark_stacks


def _linear(mode: SubBatches, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """One batched matrix product: x [M, rows, in] times weight [M, out, in] transposed."""
    mode.row_counts(input)
    if not mode.even:
        return each_copy(mode, func, input, weight=weight, bias=bias)
    x = input.reshape(mode.copies, -1, input.shape[-1])
    w = mode.stacked(weight).transpose(1, 2)
    y = torch.bmm(x, w) if bias is None else torch.baddbmm(mode.stacked(bias).unsqueeze(1), x, w)
    return y.view(*input.shape[:-1], y.shape[-1])


def _layer_norm(
    mode: SubBatches, func: Any, input: Tensor, normalized_shape: Any,
    weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    return mode.affine(func(input, normalized_shape, None, None, eps), weight, bias, trailing=0)


def _rms_norm(
    mode: SubBatches, func: Any, input: Tensor, normalized_shape: Any,
    weight: Tensor | None = None, eps: float | None = None,
) -> Tensor:  # fmt: skip
    return mode.affine(func(input, normalized_shape, None, eps), weight, None, trailing=0)


def _group_norm(
    mode: SubBatches, func: Any, input: Tensor, num_groups: int,
    weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    return mode.affine(func(input, num_groups, None, None, eps), weight, bias, trailing=input.dim() - 2)


def batch_norm(
    mode: SubBatches, input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    def normalise(x: Tensor, mean: Any, var: Any, scale: Any, shift: Any) -> Tensor:
        if not (training and mode.biased and var is not None):
            return F.batch_norm(x, mean, var, scale, shift, training, momentum, eps)
        # PyTorch adds momentum * unbiased variance; in units where unbiased is biased it adds the biased one.
        n = x.numel() // x.shape[1] * mode.pooled // sum(mode.sizes)
        scaled = var * (n / max(n - 1, 1))
        y = F.batch_norm(x, mean, scaled, scale, shift, training, momentum, eps)
        var.copy_(scaled * ((n - 1) / n))
        return y

    if training and mode.separate:
        outputs = []
        own = mode.by_copy((weight, bias))
        for m, part in enumerate(input.split(mode.row_counts(input))):
            kept = (running_mean, running_var) if m == 0 else (None, None)
            outputs.append(normalise(part, *kept, *own[m]))
        return torch.cat(outputs)
    if is_stack(weight) or is_stack(bias):
        x = normalise(input, running_mean, running_var, None, None)
        return mode.affine(x, weight, bias, trailing=input.dim() - 2)
    return normalise(input, running_mean, running_var, weight, bias)


def attention(
    mode: SubBatches, func: Any, query: Tensor, key: Tensor, value: Tensor, width: int, heads: int,
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
    own_weights, own_options = mode.by_copy(weights), mode.by_copy(options)
    outputs, maps = [], []
    start = 0
    for m, n in enumerate(rows):
        part = slice(start, start + n)
        own = own_options[m]
        if masks[0] is not None:
            own["key_padding_mask"] = masks[0][part]
        if masks[1] is not None and masks[1].dim() == 3:
            own["attn_mask"] = masks[1][start * heads : (start + n) * heads]
        output, attention = func(
            query[:, part], key[:, part], value[:, part], width, heads,
            *own_weights[m], **own,
        )  # fmt: skip
        outputs.append(output)
        maps.append(attention)
        start += n
    return torch.cat(outputs, dim=1), None if maps[0] is None else torch.cat(maps)


def each_weight(mode: SubBatches, func: Any, *args: Any, **kwargs: Any) -> Any:
    """``func`` of weights alone, for every copy by itself: a parameter that is reshaped, indexed, normalised, ..."""
    name = getattr(func, "__name__", str(func))
    if name == "__setitem__" or (name.endswith("_") and not name.endswith("__")):
        raise StackingError(f"{name} changes stacked weight copies in place")
    if "inplace" in kwargs:
        kwargs["inplace"] = False  # the copies share the stack's memory
    return _restack([func(*own, **named) for own, named in mode.by_copy((args, kwargs))])


def _restack(results: Sequence[Any]) -> Any:
    """What every copy gave, as stacks in place of its tensors. Other results must be the same for all."""
    first = results[0]
    if isinstance(first, Tensor):
        stack = torch.stack(tuple(results))
        mark_stacks([stack])
        return stack
    if isinstance(first, list | tuple) and any(isinstance(entry, Tensor) for entry in first):
        return type(first)(_restack(entries) for entries in zip(*results, strict=True))
    if any(result != first for result in results):
        raise StackingError("a number taken from the weights differs between the copies")
    return first


def _attention_bias(
    mode: SubBatches, func: Any, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    """``scaled_dot_product_attention`` whose mask holds parameters, such as a bias for relative positions."""
    mask = mode.spread(attn_mask, q) if is_stack(attn_mask) else None
    if mask is None:
        raise StackingError(f"{func.__name__} takes stacked weight copies for nothing but a mask")
    return func(q, k, v, mask, *args, **kwargs)


def elementwise(mode: SubBatches, func: Any, *operands: Any, **kwargs: Any) -> Any:
    """Activations and bare parameters (position embedding, layer scale), broadcast per copy."""
    activations = [x for x in operands if isinstance(x, Tensor) and not is_stack(x) and mode.has_rows(x)]
    if not activations:
        return each_weight(mode, func, *operands, **kwargs)
    x = max(activations, key=Tensor.dim)
    spread = [mode.spread(operand, x) if is_stack(operand) else operand for operand in operands]
    if any(operand is None for operand in spread):
        return each_weight(mode, func, *operands, **kwargs)
    return func(*spread, **kwargs)


def _expand(mode: SubBatches, func: Any, stack: Tensor, *sizes: Any) -> Tensor:
    """``class_token.expand(batch, -1, -1)``: every copy's token for the copy's rows."""
    shape = tuple(sizes[0]) if isinstance(sizes[0], list | tuple) else sizes
    if stack.shape[1:2] != (1,) or len(shape) != stack.dim() - 1 or shape[0] != sum(mode.sizes):
        return each_weight(mode, func, stack, *sizes)
    spread = mode.rows(stack.squeeze(1), mode.sizes)
    return spread.expand(*shape) if func is Tensor.expand else spread.repeat(1, *shape[1:])


def _shape(mode: SubBatches, func: Any, stack: Tensor) -> Any:
    return stack.shape[1:]


def _plain(mode: SubBatches, func: Any, *args: Any) -> Any:
    return func(*args)


def _still_stacked(mode: SubBatches, func: Any, stack: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    result = func(stack, *args, **kwargs)
    mark_stacks([result])
    return result


ELEMENTWISE: dict[Any, Callable[..., Any]] = {
    getattr(owner, name + end): elementwise
    for owner, ends in ((torch, ("",)), (Tensor, ("", "_")))
    for name in ("add", "sub", "mul", "div", "addcmul")
    for end in ends
}

OF_ACTIVATIONS: dict[Any, Callable[..., Any]] = {
    F.conv1d: convolution,
    F.conv2d: convolution,
    F.conv3d: convolution,
    F.linear: _linear,
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    F.multi_head_attention_forward: attention,
    F.scaled_dot_product_attention: _attention_bias,
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), each_copy),
    **dict.fromkeys((F.embedding, F.prelu), each_copy),
    **ELEMENTWISE,
}
"""How functions run whose first tensor is an activation."""

OF_WEIGHTS: dict[Any, Callable[..., Any]] = {
    Tensor.expand: _expand,
    Tensor.repeat: _expand,
    Tensor._is_view: _plain,  # what a compiled model of torch 2.11 asks about its inputs
    Tensor.shape.__get__: _shape,  # type: ignore[attr-defined]
    **dict.fromkeys(
        (Tensor.detach, Tensor.to, Tensor.type_as, Tensor.float, Tensor.contiguous), _still_stacked
    ),
    **{
        getattr(Tensor, name).__get__: _plain
        for name in ("dtype", "device", "requires_grad", "is_cuda", "layout")
    },
    **ELEMENTWISE,
}
"""How functions run whose first tensor is a stack, if not for each copy by itself."""
