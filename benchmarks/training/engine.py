"""How a training step is run: eagerly, with the model compiled, or as one CUDA graph.

An engine changes no meaning: all compute the same step, up to the order in which floating-point numbers are summed.
Before a faster one is used, it is rehearsed: on the cell's own first batch it must give what the eager step gives, from
the same state, at steps of different numbers and learning rates, without compiling anew. Then the state is put back, so
that training starts as if there had been no rehearsal. What fails the rehearsal is not used, and one line says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.errors import one_line
from benchmarks.terminal import warn
from benchmarks.training.graph import Capture, GraphStep, cuda_graph
from benchmarks.training.step import TrainingStep

LADDER = ("graph", "compiled", "eager")
"""The fastest first."""

TOLERANCES = {"float32": (1e-3, 0.1), "tf32": (1e-2, 0.1), "bf16": (0.05, 0.3)}
"""Of loss and gradient, relative, by precision. Rounding opens and shuts units whose input is 0 but for rounding, as
in an image's even background, so that the gradient jumps by some per cent; with other random numbers it is another."""
UPDATE_TOLERANCE = 0.25
"""Of the weights' change. AdamW moves also those weights whose gradient is zero up to rounding."""
COMPILE_FROM_STEPS = 10_000
"""On a CPU ``auto`` compiles for runs of at least so many steps, for which it pays also on a tiny network."""
RECOMPILATIONS = 64
"""So many forms of the model (methods, modes, shapes) may be compiled in one process."""

Run = Callable[[Tensor, Tensor], Tensor]


class UnfitError(Exception):
    """Why an engine can't run this cell here."""


class Engine:
    """Runs a cell's training steps in the fastest way that is asked for and proves itself.

    Args:
        asked: one of :data:`benchmarks.runtime.ENGINES`. ``auto`` is ``graph`` on a CUDA device; on a CPU it is
            ``compiled`` for long runs and ``eager`` for the others, see docs/performance.md.
        step: the cell's step.
        steps: how many the whole run has.
        capture: makes the graph; CUDA's by default.

    Attributes:
        ran: what runs, None before :meth:`prepare`.
        why: for each faster engine that was tried, why it is not used.
        seconds: how long compilation and rehearsal took.
    """

    def __init__(self, asked: str, step: TrainingStep, steps: int, capture: Capture | None = None) -> None:
        self.asked, self.step, self.steps = asked, step, steps
        self.capture = capture or (cuda_graph if step.device.type == "cuda" else None)
        self.ran: str | None = None
        self.why: dict[str, str] = {}
        self.seconds = 0.0
        self._run: Run = step
        self._shapes: tuple[torch.Size, torch.Size] | None = None

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """One training step. A batch of another shape than the first, such as a smaller last one, runs eagerly."""
        if (x.shape, y.shape) == self._shapes:
            return self._run(x, y)
        with _eager(self.step):
            return self.step(x, y)

    def record(self) -> dict[str, Any]:
        """What the card tells of it."""
        return {"asked": self.asked, "ran": self.ran, "why": self.why, "seconds": self.seconds}

    def prepare(self, x: Tensor, y: Tensor) -> None:
        """Choose, compile and rehearse for batches like (x, y); leaves the state of the training as it is.

        Uses torch's global generator, so seed it afterwards.
        """
        begun = time.perf_counter()
        if self.step.sharing.count > 1:
            self._only_eager(x, y)
            return
        fastest = self._fastest() if self.asked == "auto" else self.asked
        for name in LADDER[LADDER.index(fastest) :]:
            try:
                self._run = self._rehearsed(name, x, y)
                self.ran, self._shapes = name, (x.shape, y.shape)
                break
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever a compiler or a driver raises
                self.why[name] = one_line(error)
        if self.why:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.why.items())
            _warn_once(f"engine={self.asked}: the training step runs {self.ran} ({reasons})")
        self.seconds = time.perf_counter() - begun

    def _only_eager(self, x: Tensor, y: Tensor) -> None:
        """Without a rehearsal: one that fails in one process alone would leave the others waiting."""
        self.ran, self._shapes = "eager", (x.shape, y.shape)
        if self.asked not in ("auto", "eager"):
            self.why[self.asked] = "with devices or accumulate above 1 only eager steps are run"
            if self.step.sharing.processes.first:
                _warn_once(f"engine={self.asked}: the training step runs eager ({self.why[self.asked]})")

    def _fastest(self) -> str:
        if self.capture is not None:
            return "graph"
        # Nothing timed: a run that is continued must be run as it was begun.
        return "compiled" if self.steps >= COMPILE_FROM_STEPS else "eager"

    def _rehearsed(self, name: str, x: Tensor, y: Tensor) -> Run:
        """The step as the engine ``name`` runs it, proven; raises where it is none."""
        if name == "eager":
            return self.step
        if name == "graph" and self.capture is None:
            raise UnfitError("CUDA graphs need a CUDA device")
        state = State(self.step)
        try:
            with _compilation():
                expected = [_outcome(self.step, state, x, y, number) for number in (0, 1)]
                _speed_up(self.step, x)
                _compile(self.step)
                run: Run = self.step
                for number in (0, 1):  # compiles, and makes the optimizer's state
                    _outcome(run, state, x, y, number)
                if name == "graph":
                    assert self.capture is not None
                    run = GraphStep(self.step, x, y, self.capture)
                compiled = _compilations()
                for number in (0, 1):
                    _check(_outcome(run, state, x, y, number), expected[number], self.step.recipe.precision)
                if _compilations() != compiled:
                    raise UnfitError("the model would be compiled anew in every step")
            state.restore()
        except BaseException:
            _slow_down(self.step)
            state.restore(whole=True)
            raise
        return run


@cache
def _warn_once(text: str) -> None:
    warn(text)


class State:
    """All that a step changes, kept to be put back: weights, buffers, the optimizer's and the method's state."""

    def __init__(self, step: TrainingStep) -> None:
        self.step = step
        groups = step.optimizer.param_groups
        self.parameters: list[Tensor] = [p for group in groups for p in group["params"]]
        self.rates = [group["lr"] for group in groups]
        self.kept = [
            (tensor, tensor.detach().clone()) for tensor in (*self.parameters, *step.model.buffers())
        ]
        self.optimizer = deepcopy(step.optimizer.state_dict())
        self.method = deepcopy(step.method.state_dict())
        self.of_optimizer = {place: value.clone() for place, value in self._optimizer_tensors()}

    def _optimizer_tensors(self) -> Iterator[tuple[tuple[Tensor, str], Tensor]]:
        for parameter, state in self.step.optimizer.state.items():
            yield from (((parameter, key), v) for key, v in state.items() if isinstance(v, Tensor))

    @torch.no_grad()
    def restore(self, whole: bool = False) -> None:
        """Put all back in place, so that a graph finds it; what the optimizer has made since becomes zero.

        With ``whole`` the optimizer's state becomes what it was, no tensor more.
        """
        for tensor, value in self.kept:
            tensor.copy_(value)
        for group, rate in zip(self.step.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate
        if whole:
            self.step.optimizer.load_state_dict(self.optimizer)
        else:
            for place, tensor in self._optimizer_tensors():
                tensor.copy_(self.of_optimizer.get(place, torch.zeros_like(tensor)))
        self.step.method.load_state_dict(self.method)
        self.step.optimizer.zero_grad()


def _outcome(
    run: Run, state: State, x: Tensor, y: Tensor, number: int
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Loss, gradients and change of the weights of a step from the kept state, as if it were ``number`` steps on."""
    state.restore()
    step = state.step
    step.method.step += number
    for group, rate in zip(step.optimizer.param_groups, state.rates, strict=True):
        group["lr"] = (rate or 0.1) * (1 + 2 * number)
    torch.manual_seed(number)
    before = [p.detach().clone() for p in state.parameters]
    loss = run(x, y).clone()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in state.parameters]
    changes = [p.detach() - old for p, old in zip(state.parameters, before, strict=True)]
    return loss, gradients, changes


def _check(ours: tuple[Any, ...], expected: tuple[Any, ...], precision: str) -> None:
    limits = (*TOLERANCES[precision], UPDATE_TOLERANCE)
    for what, limit, a, b in zip(("loss", "gradient", "update"), limits, ours, expected, strict=True):
        theirs = _flat(b)
        distance = float((_flat(a) - theirs).norm() / theirs.norm().clamp(min=1e-30))
        if not distance <= limit and bool(theirs.isfinite().all()):
            raise UnfitError(f"its {what} is {distance:.1%} off the eager step's, more than {limit:.1%}")


def _flat(values: Tensor | list[Tensor]) -> Tensor:
    return torch.cat([v.flatten().double() for v in ([values] if isinstance(values, Tensor) else values)])


def _compile(step: TrainingStep) -> None:
    """Have the model compiled when it is next called in a step."""
    # The layers' random numbers stay torch's own. Shapes are fixed: the engine lets no other batch in.
    step.model.compile(dynamic=False, options={"fallback_random": True})
    step.compiled, step.model._compiled_call_impl = step.model._compiled_call_impl, None


def _speed_up(step: TrainingStep, x: Tensor) -> None:
    """The memory format and the optimizer's kernels that are fastest, for a step that need not be exact."""
    if x.dim() == 4 and any(isinstance(module, nn.Conv2d) for module in step.model.modules()):
        step.channels_last = True
        _to_memory_format(step, torch.channels_last)
    for group in step.optimizer.param_groups:
        group["fused"] = True
    for parameter, state in step.optimizer.state.items():
        if "step" in state:  # AdamW counts on the CPU until its kernels are fused
            state["step"] = state["step"].to(parameter.device)


def _slow_down(step: TrainingStep) -> None:
    step.compiled = None
    if step.channels_last:
        step.channels_last = False
        _to_memory_format(step, torch.contiguous_format)
    for group in step.optimizer.param_groups:
        group["fused"] = None


def _to_memory_format(step: TrainingStep, wanted: torch.memory_format) -> None:
    """The model's 4-dimensional tensors, in place, and the optimizer's, whose kernels need them alike."""
    step.model.to(memory_format=wanted)
    for parameter, state in step.optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.dim() == 4:
                state[key] = value.contiguous(memory_format=wanted)


@contextmanager
def _eager(step: TrainingStep) -> Iterator[None]:
    compiled, step.compiled = step.compiled, None
    try:
        yield
    finally:
        step.compiled = compiled


@contextmanager
def _compilation() -> Iterator[None]:
    """Compile rather than give up silently after a few forms of a model."""
    import torch._dynamo

    with torch._dynamo.config.patch(
        recompile_limit=RECOMPILATIONS, fail_on_recompile_limit_hit=True, suppress_errors=False
    ):
        yield


def _compilations() -> int:
    """How many graphs have been compiled in this process."""
    import torch._dynamo

    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
