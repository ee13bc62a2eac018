"""The training step of a cell, written once; engines change how its kernels are launched, not what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.cell import Recipe
from benchmarks.errors import UserError
from benchmarks.training.optimizers import clip_gradients
from benchmarks.training.sharing import Sharing
from weightaug.method import Criterion, Method
from weightaug.wrappers import distributed


class TrainingStep:
    """Gradient, clipping and the optimizer's update on one batch; leaves the gradients in place.

    Nothing here waits for the device.

    Args:
        recipe: its precision and clipping.
        device: torch's name of it.

        sharing: which part of every batch the step gets here, and in how many parts it is run.

    Attributes:
        total: the size of the whole batch, of which a step gets this process's rows; 0: all have as many.
        compiled: runs in place of the model's own call within a step, and nowhere else; None: the model's own.
        channels_last: whether the images come in that memory format.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: nn.Module,
        method: Method,
        optimizer: Optimizer,
        device: str,
        sharing: Sharing | None = None,
    ) -> None:
        self.sharing, self.total = sharing or Sharing(), 0
        self.recipe, self.model, self.method, self.optimizer = recipe, model, method, optimizer
        self.device = torch.device(device)
        self.compiled: Callable[..., Any] | None = None
        self.channels_last = False
        check_precision(recipe.precision, device)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """One step on the batch (x, y); returns its mean loss, detached and still on the device."""
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        self.optimizer.zero_grad()
        with numerics(self.recipe.precision, self.device), self._compiled_model():
            loss = self._whole(x, y) if self.sharing.count == 1 else self._in_parts(x, y)
        if self.recipe.clip_norm is not None:
            clip_gradients(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        return loss

    def _whole(self, x: Tensor, y: Tensor) -> Tensor:
        return self.method.backward(F.cross_entropy, x, y)

    def _in_parts(self, x: Tensor, y: Tensor) -> Tensor:
        """The gradient and the loss of a batch of which other processes have parts, or that is run in parts."""
        seed, parallel = torch.initial_seed(), distributed(self.method.model)
        loss = torch.zeros((), device=self.device)
        for part, rows, weight in self.sharing.parts(self.total or len(x) * self.sharing.processes.count):
            torch.manual_seed(seed)  # every part draws the whole batch's numbers
            with nullcontext() if parallel is None or part.last else parallel.no_sync():
                loss += self.method.backward(_weighted(weight), x[rows], y[rows], part)
        loss /= self.sharing.accumulate
        if self.sharing.accumulate > 1:
            gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"]]
            torch._foreach_div_([g for g in gradients if g is not None], self.sharing.accumulate)
        extra = [p.grad for p in self.method.parameters() if p.grad is not None]
        self.sharing.processes.average([loss, *extra])
        return loss

    @contextmanager
    def _compiled_model(self) -> Iterator[None]:
        if self.compiled is None:
            yield
            return
        self.model._compiled_call_impl = self.compiled  # where nn.Module.compile puts it
        try:
            yield
        finally:
            self.model._compiled_call_impl = None


def _weighted(weight: float) -> Criterion:
    """The mean loss of a part, times its share of the batch's mean loss where parts are not of the same size."""
    if weight == 1:
        return F.cross_entropy
    return lambda logits, y: weight * F.cross_entropy(logits, y)


def check_precision(precision: str, device: str) -> None:
    """Raise a UserError where the device can't compute so: only CUDA devices have TF32."""
    if precision == "tf32" and not device.startswith("cuda"):
        raise UserError(f"recipe.precision=tf32 needs a CUDA device, this is {device}; use float32 or bf16")


@contextmanager
def numerics(precision: str, device: torch.device) -> Iterator[None]:
    """Compute in ``precision``; the weights, their gradients and the optimizer are float32 in any case.

    float32  all of it, also in cuDNN's convolutions, which are TF32 by torch's default
    tf32     matrix products and convolutions round their inputs to 10 bits of mantissa
    bf16     torch's autocast
    """
    if device.type == "cuda":
        before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
