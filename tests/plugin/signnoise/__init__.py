"""A sample plug-in method: the gradient, with random signs where it is small."""

import torch
from torch import Tensor

from weightaug import Criterion, Method, RandomSource


class SignNoise(Method):
    """Adds ``strength * sign(z)``, z ~ N(0, 1), to the plain gradient."""

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        strength: float = 1e-4,
        seed: int = 0,
        random: RandomSource | None = None,
    ) -> None:
        super().__init__(model, seed=seed, random=random)
        if strength < 0:
            raise ValueError(f"strength={strength} must not be negative")
        self.strength = strength

    def _backward(self, criterion: Criterion, x: Tensor, y: Tensor) -> Tensor:
        loss = criterion(self.model(x), y)
        loss.backward()
        generator = self.random.generator(loss.device, self.step)
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                noise = torch.randn(parameter.shape, generator=generator, device=loss.device)
                parameter.grad += self.strength * noise.sign()
        return loss.detach()
