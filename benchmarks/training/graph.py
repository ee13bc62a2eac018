"""A training step as one graph of kernels that is launched at once (a CUDA graph).

A graph repeats kernels, not Python: whatever Python decides in a step is frozen when it is captured. So inputs,
learning rates and random numbers reach it through tensors and generators that stay, and are filled anew before each
launch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer

from benchmarks.training.step import TrainingStep
from weightaug.random import RandomSource, derive_seed

WARM_UP = 3
"""Steps before the capture, in which libraries choose their algorithms; torch's own recommendation."""

Capture = Callable[[Callable[[], Tensor], Sequence[torch.Generator]], tuple[Tensor, Callable[[], None]]]
"""Maps a function and the generators that it draws from to its captured result and what fills that anew."""


def cuda_graph(
    run: Callable[[], Tensor], generators: Sequence[torch.Generator]
) -> tuple[Tensor, Callable[[], None]]:
    """Capture ``run``, which must not wait for the device, on the current CUDA device.

    Other threads may go on meanwhile, such as the one that page-locks the next images.
    """
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = run()
    return result, graph.replay


class GraphStep:
    """``step`` as a graph for batches of one shape.

    Args:
        step: has run before with the optimizer's state in place. Afterwards it still runs as it did.
        x, y: a batch.
        capture: makes the graph.

    Raises:
        ValueError: the method draws random numbers that a graph would freeze.
    """

    def __init__(self, step: TrainingStep, x: Tensor, y: Tensor, capture: Capture) -> None:
        self.step = step
        self.x, self.y = x.clone(), y.clone()
        groups = step.optimizer.param_groups
        self.rates = [torch.tensor(float(group["lr"]), device=step.device) for group in groups]
        self.random = KeptGenerators(step.method.random, step.device)
        own, step.method.random = step.method.random, self.random
        rates = [group["lr"] for group in groups]
        number = step.method.step
        try:
            for group, rate in zip(groups, self.rates, strict=True):
                group["lr"] = rate
            self._warm_up()
            step.method.step = number
            self.random.seed_for(number)
            self.random.captured = True
            step.optimizer.zero_grad()  # so that the graph makes gradients in memory of its own
            with _capturable(step.optimizer):
                self.loss, self.replay = capture(
                    lambda: step(self.x, self.y), list(self.random.made.values())
                )
            self.gradients = [(p, p.grad) for group in groups for p in group["params"]]
        finally:
            step.method.random, step.method.step = own, number
            for group, old in zip(groups, rates, strict=True):
                group["lr"] = old

    def _warm_up(self) -> None:
        on_gpu = self.step.device.type == "cuda"
        stream = torch.cuda.Stream(self.step.device) if on_gpu else None
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream(self.step.device))
        with torch.cuda.stream(stream):  # does nothing for None
            for _ in range(WARM_UP):
                self.random.step = self.step.method.step
                self.step(self.x, self.y)
        if stream is not None:
            torch.cuda.current_stream(self.step.device).wait_stream(stream)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        method = self.step.method
        self.x.copy_(x)
        self.y.copy_(y)
        for rate, group in zip(self.rates, self.step.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        self.random.seed_for(method.step)
        self.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient  # an eager step in between has put others there
        method.step += 1
        return self.loss.clone()


@contextmanager
def _capturable(optimizer: Optimizer) -> Iterator[None]:
    """AdamW refuses to be captured unless it is told so, and warns when it is told so at other times."""
    groups = [group for group in optimizer.param_groups if "capturable" in group]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in groups:
            group["capturable"] = False


class KeptGenerators(RandomSource):
    """A source of the same random numbers whose generators stay from step to step and are seeded anew.

    Args:
        source: whose numbers these are.
        device: where the graph runs; a draw elsewhere would be frozen into it, so it is refused.
    """

    def __init__(self, source: RandomSource, device: torch.device) -> None:
        if type(source) is not RandomSource:
            raise ValueError("the method's random numbers have a source of their own")
        super().__init__(source.seed)
        self.device, self.step, self.captured = device, 0, False
        self.made: dict[tuple[int | str, ...], torch.Generator] = {}

    def generator(self, device: torch.device | str, *key: int | str) -> torch.Generator:
        if torch.device(device).type != self.device.type:
            raise ValueError(f"the method draws on the {device} in every step; a graph would repeat one draw")
        if key[:1] != (self.step,):
            raise ValueError("the method draws random numbers that are no function of the step")
        purpose = key[1:]
        if self.captured and purpose not in self.made:
            raise ValueError("the method draws other random numbers in other steps")
        if purpose not in self.made:
            self.made[purpose] = torch.Generator(device)
        if not self.captured:
            self.made[purpose].manual_seed(derive_seed(self.seed, *key))
        return self.made[purpose]

    def seed_for(self, step: int) -> None:
        """Make the next numbers those of ``step``."""
        self.step = step
        for purpose, generator in self.made.items():
            generator.manual_seed(derive_seed(self.seed, step, *purpose))
