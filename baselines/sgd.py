"""Plain stochastic gradients."""

from __future__ import annotations

from torch import Tensor

from weightaug.method import Criterion, Method, backpropagate


class SGD(Method):
    """The plain gradient: ``g = d mean_i L(f(x_i; w), y_i) / d w``. One forward and one backward pass.

    The method is the gradient only; the optimizer that uses it may be torch's SGD, AdamW or any other.
    """

    def _backward(self, criterion: Criterion, x: Tensor, y: Tensor) -> Tensor:
        loss = criterion(self.model(x), y)
        backpropagate(loss)
        return loss.detach()
