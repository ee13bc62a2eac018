"""Learning-rate schedules as pure functions: optimizer step (0 = the first update) -> learning rate.

The papers' schedules A, B and C (DAMP, appendix F and the authors' code) are ``step_linear``,
``warmup_cosine_floor`` and ``warmup_cosine``; WAS trains with ``constant``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from benchmarks.errors import UserError, unknown_name

Schedule = Callable[[int], float]


def constant(lr: float) -> Schedule:
    """``lr`` at every step (WAS)."""
    return lambda step: lr


def step_linear(lr: float, lr_ratio: float, epochs: int, steps_per_epoch: int) -> Schedule:
    """Schedule A: ``lr`` for half of the epochs, linear to ``lr * lr_ratio`` at 9/10, constant from there.

    It changes from epoch to epoch only: with t = epoch / epochs the rate is lr for t <= 0.5 and the line's
    for t <= 0.9.
    """

    def rate(step: int) -> float:
        t = step // steps_per_epoch / epochs
        if t <= 0.5:
            return lr
        if t <= 0.9:
            return lr * (1 - (1 - lr_ratio) * (t - 0.5) / (0.9 - 0.5))
        return lr * lr_ratio

    return rate


def warmup_cosine_floor(lr: float, lr_ratio: float, total: int, warmup: int) -> Schedule:
    """Schedule B: linear from ``lr * lr_ratio`` to ``lr`` in ``warmup`` steps, half a cosine back down to it.

    From step ``total`` on the rate is that of the last step, ``total - 1``.
    """
    floor = lr * lr_ratio

    def rate(step: int) -> float:
        step = min(step, total - 1)
        if step < warmup:
            return floor + (lr - floor) * (step / warmup)
        return floor + (lr - floor) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))

    return rate


def warmup_cosine(lr: float, lr_ratio: float, total: int, warmup: int) -> Schedule:
    """Schedule C: linear from ``lr * lr_ratio`` to ``lr`` in ``warmup`` steps, half a cosine to 0."""
    start = lr * lr_ratio

    def rate(step: int) -> float:
        if step < warmup:
            return (start - lr) * (1 - step / warmup) + lr
        return lr * 0.5 * (1 + math.cos(math.pi * (min(step, total) - warmup) / (total - warmup)))

    return rate


SCHEDULES = ("constant", "step_linear", "warmup_cosine_floor", "warmup_cosine")


def build_schedule(
    name: str,
    *,
    lr: float,
    lr_ratio: float = 0.0,
    epochs: int,
    steps_per_epoch: int,
    warmup_epochs: int = 0,
    warmup_steps: int = 0,
) -> Schedule:
    """The schedule of that name.

    Args:
        name: one of ``SCHEDULES``.
        lr: the highest learning rate.
        lr_ratio: the lowest as a share of ``lr`` (``warmup_cosine``: where the warm-up starts).
        epochs, steps_per_epoch: the length of the training.
        warmup_epochs, warmup_steps: the length of the warm-up; at most one may be given.

    Raises:
        UserError: unknown name; a warm-up that is given twice, not known to the schedule, or too long.
    """
    if name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    if warmup_epochs and warmup_steps:
        raise UserError("warmup_epochs and warmup_steps are both set; set one of them to 0")
    warmup, total = warmup_epochs * steps_per_epoch + warmup_steps, epochs * steps_per_epoch
    if name in ("constant", "step_linear"):
        if warmup:
            raise UserError(f"the schedule {name} has no warm-up; set warmup_epochs and warmup_steps to 0")
        return constant(lr) if name == "constant" else step_linear(lr, lr_ratio, epochs, steps_per_epoch)
    if warmup >= total:
        raise UserError(
            f"a warm-up of {warmup} steps does not fit in {total} steps; shorten it or train longer"
        )
    make = warmup_cosine_floor if name == "warmup_cosine_floor" else warmup_cosine
    return make(lr, lr_ratio, total, warmup)
