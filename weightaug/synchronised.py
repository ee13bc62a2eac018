"""BatchNorm whose statistics are those of the examples of several processes together."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules._functions import SyncBatchNorm


def batch_norm(
    group: dist.ProcessGroup, input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """``F.batch_norm`` of the inputs [n, C, ...] of all processes of ``group``, differentiated through all of them.

    Every process calls it at the same time, with an n of its own, and gets its own part of the output. The gradients
    for weight and bias are those of its own part, to be summed over the processes as for every other weight.
    """
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if input.is_cuda:  # torch's own kernels
        processes = dist.get_world_size(group)
        return SyncBatchNorm.apply(
            input, weight, bias, running_mean, running_var, eps, momentum, group, processes
        )
    return _BatchNorm.apply(input, weight, bias, running_mean, running_var, eps, momentum, group)


class _BatchNorm(torch.autograd.Function):
    """As torch's SyncBatchNorm, which needs a GPU."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None,
        running_mean: Tensor | None, running_var: Tensor | None,
        eps: float, momentum: float, group: dist.ProcessGroup,
    ) -> Tensor:  # fmt: skip
        axes, wide = _axes(x), _wide(x)
        var, mean = torch.var_mean(wide, axes, correction=0)
        count = mean.new_tensor([x.numel() // x.shape[1]])
        parts = [torch.empty_like(torch.cat([mean, var, count])) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, torch.cat([mean, var, count]), group=group)
        means, variances, counts = torch.stack(parts).split([len(mean), len(mean), 1], dim=1)
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        var = (counts * (variances + (means - mean).square())).sum(0) / total
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * (total / (total - 1))).to(running_var.dtype), momentum)
        ctx.group, ctx.total = group, total
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt())
        scale, shift = (None if p is None else p.to(wide.dtype) for p in (weight, bias))
        return F.batch_norm(wide, mean, var, scale, shift, False, 0.0, eps).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight, mean, scale = ctx.saved_tensors
        g, axes = _wide(gradients[0]), _axes(x)
        shape = (1, -1, *(1,) * (x.dim() - 2))
        normal = (_wide(x) - mean.view(shape)) * scale.view(shape)
        own = torch.stack([g.sum(axes), (g * normal).sum(axes)])
        sums = own.clone()
        dist.all_reduce(sums, group=ctx.group)
        average, slope = (sums / ctx.total).unbind()
        factor = scale if weight is None else scale * weight
        of_x = factor.view(shape) * (g - average.view(shape) - normal * slope.view(shape))
        of_bias, of_weight = own.to(weight.dtype).unbind() if weight is not None else (None, None)
        return of_x.to(x.dtype), of_weight, of_bias, None, None, None, None, None


def _wide(x: Tensor) -> Tensor:
    """In the precision of the statistics: at least float32."""
    return x if x.dtype == torch.float64 else x.float()


def _axes(x: Tensor) -> list[int]:
    """All but the channels'."""
    return [0, *range(2, x.dim())]
