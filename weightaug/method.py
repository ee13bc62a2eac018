"""The one interface of all methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from weightaug.parts import Part
from weightaug.random import RandomSource

Criterion = Callable[[Tensor, Tensor], Tensor]
"""Maps (logits [N, classes], targets [N]) to the mean loss over the N examples, a scalar."""


def backpropagate(loss: Tensor, changed: nn.Module | None = None) -> None:
    """``loss.backward()``, never under autocast: backward kernels have the precision of the forward ones.

    Args:
        changed: the model, if its forward pass was not the one that it would run by itself.

    Raises:
        ValueError: ``changed`` uses activation checkpointing, which would repeat its own forward pass.
    """
    with torch.autocast(loss.device.type, enabled=False), _no_second_forward(changed):
        loss.backward()


def differentiate(loss: Tensor, weights: Mapping[str, Tensor], changed: nn.Module) -> dict[str, Tensor]:
    """The gradient of ``loss`` for each of ``weights`` that it depends on; touches no ``.grad``."""
    with torch.autocast(loss.device.type, enabled=False), _no_second_forward(changed):
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return {name: g for name, g in zip(weights, gradients, strict=True) if g is not None}


@contextmanager
def _no_second_forward(model: nn.Module | None) -> Iterator[None]:
    """Nothing but activation checkpointing calls a module during a backward pass."""
    if model is None:
        yield
        return

    def refuse(module: nn.Module, args: Any) -> None:
        if any(module is own for own in model.modules()):
            raise ValueError(
                "activation checkpointing would compute the gradient at the model's own weights, not at the "
                "method's: switch it off, e.g. model.set_grad_checkpointing(False) in timm"
            )

    handle = register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


class Method:
    """A rule for how one training step gets its gradients.

    It says nothing about the optimizer, the data or the schedule::

        method = weightaug.DAMP(model, sigma=0.2, sub_batches=8)
        for x, y in loader:
            loss = method.backward(criterion, x, y)
            optimizer.step(); optimizer.zero_grad()

    A subclass implements ``_backward``. After every call the model's weights are bit-identical to before.

    Args:
        model: the network to train. Its parameters receive the gradients; the objects that they are now, so put
            new layers in first.
        seed: seed of the method's own randomness, ignored when ``random`` is given.
        random: where random numbers come from; replace it to inject noise and draws.
    """

    modes: ClassVar[tuple[str, ...]] = ("plain",)
    """The ways in which a trained model can be run, see :meth:`predict`."""
    drawing_modes: ClassVar[tuple[str, ...]] = ()
    """Those in which every prediction draws anew, as a function of the seed and of how many there were before:
    ``predictions``. Whoever leaves out some that another process makes adds their number to it."""

    def __init__(self, model: nn.Module, *, seed: int = 0, random: RandomSource | None = None) -> None:
        self.model = model
        self.random = random if random is not None else RandomSource(seed)
        self.step = 0
        self.predictions = 0
        self.part = Part(0, 1, 0, 0, 0)

    def backward(self, criterion: Criterion, x: Tensor, y: Tensor, part: Part | None = None) -> Tensor:
        """Add the method's gradient to every parameter's ``.grad`` and return the mean loss, detached.

        Args:
            criterion: mean loss of (logits, targets). It may return a multiple of it: divided by the number
                of batches whose gradients accumulate, or scaled by a ``GradScaler``.
            x: inputs [N, ...].
            y: targets [N], or [N, classes] where the criterion takes mixed labels.
            part: of which mini-batch (x, y) is which part; all parts of it, here and in other processes, are one
                step. Torch's global generator must be seeded alike before each. By default it is a mini-batch, or a
                process's equal part of one where DistributedDataParallel wraps the model.

        Raises:
            ValueError: N is 0, or not the part's size; or the method runs the model with changed weights or masks
                and the model uses activation checkpointing, which would compute them anew without.
        """
        if len(x) == 0:
            raise ValueError("the batch is empty: there is nothing to compute a gradient from")
        if part is not None and part.size != len(x):
            raise ValueError(
                f"the part has {part.size} examples and the batch {len(x)}; give those of the part"
            )
        self.part = Part.of(self.model, len(x)) if part is None else part
        with nullcontext() if part is None else part.layers():
            loss = self._backward(criterion, x, y)
        self.step += self.part.last
        return loss

    def _backward(self, criterion: Criterion, x: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must say how a step gets its gradients")

    @torch.no_grad()
    def predict(self, x: Tensor, mode: str = "plain") -> Tensor:
        """Logits [N, classes] of the trained model in one of ``modes``."""
        return self.logits(x, mode)

    def logits(self, x: Tensor, mode: str = "plain") -> Tensor:
        """As :meth:`predict`, but with a graph, for attacks that follow the gradient by the inputs."""
        if mode not in self.modes:
            raise ValueError(
                f"{type(self).__name__} has no inference mode {mode!r}; it has {', '.join(self.modes)}"
            )
        return self._predict(x, mode)

    def _predict(self, x: Tensor, mode: str) -> Tensor:
        return self.model(x)

    def parameters(self) -> list[nn.Parameter]:
        """Learnable parameters that the method adds to the model's; the optimizer must get them too."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """All that must be saved to continue exactly: a step counter, for most methods."""
        return {"seed": self.random.seed, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the run that saved ``state`` stopped."""
        self.random.seed = int(state["seed"])
        self.step = int(state["step"])
