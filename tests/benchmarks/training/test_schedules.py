"""Learning rates against the values of the authors' code."""

from __future__ import annotations

import numpy as np
import pytest
from golden_files import load_golden

from benchmarks.errors import UserError
from benchmarks.training.schedules import Schedule, build_schedule


def official(name: str) -> Schedule:
    _, info = load_golden("lr_schedules")
    spec = info["schedules"][name]
    if name.startswith("A"):
        return build_schedule(
            "step_linear",
            lr=spec["initial_lr"],
            lr_ratio=spec["lr_ratio"],
            epochs=spec["epochs"],
            steps_per_epoch=spec["steps_per_epoch"],
        )
    if name.startswith("B"):
        return build_schedule(
            "warmup_cosine_floor",
            lr=spec["max_lr"],
            lr_ratio=spec["lr_ratio"],
            epochs=spec["epochs"],
            steps_per_epoch=spec["steps_per_epoch"],
            warmup_epochs=spec["warmup_epochs"],
        )
    epochs = int(name.split("_")[2].removesuffix("ep"))
    return build_schedule(
        "warmup_cosine",
        lr=spec["peak_value"],
        lr_ratio=spec["init_value"] / spec["peak_value"],
        epochs=epochs,
        steps_per_epoch=spec["decay_steps"] // epochs,
        warmup_steps=spec["warmup_steps"],
    )


def check(rates: list[float], expected: np.ndarray, highest: float) -> None:
    assert len(rates) == len(expected)
    exact = expected.dtype == np.float64
    # What float32 rounds is of the size of the highest rate.
    tolerance = 5e-16 * np.abs(expected) if exact else 1.7e-7 * highest
    assert (np.abs(np.array(rates) - expected) <= tolerance).all()


NAMES = ["A300", "A150", "B_resnet50_90ep", "C_vit_100ep", "C_vit_200ep", "C_vit_300ep", "C_vit_500ep"]


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("name", NAMES)
def test_official_rates(name: str, precision: str) -> None:
    arrays, info = load_golden("lr_schedules")
    schedule, spec = official(name), info["schedules"][name]
    steps = arrays[f"{name}_steps"].tolist()
    highest = arrays[f"{name}_lr_f64"].max()
    if name.startswith("A"):
        first_steps = range(0, spec["epochs"] * spec["steps_per_epoch"], spec["steps_per_epoch"])
        check([schedule(step) for step in first_steps], arrays[f"{name}_lr_{precision}"], highest)
        check([schedule(step) for step in steps], arrays[f"{name}_lr_at_steps_{precision}"], highest)
    else:
        check([schedule(step) for step in steps], arrays[f"{name}_lr_{precision}"], highest)
    if name.startswith("B"):
        beyond = [schedule(spec["total_steps"] + extra) for extra in (0, 5)]
        check(beyond, arrays[f"{name}_lr_past_end_{precision}"], highest)


def test_constant() -> None:
    schedule = build_schedule("constant", lr=0.01, epochs=500, steps_per_epoch=391)
    assert {schedule(step) for step in (0, 1, 195_499)} == {0.01}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cosine", {}, "unknown schedule 'cosine'"),
        ("warmup_cosine", {"warmup_epochs": 1, "warmup_steps": 5}, "both set"),
        ("step_linear", {"warmup_steps": 5}, "step_linear has no warm-up"),
        ("constant", {"warmup_epochs": 5}, "constant has no warm-up"),
        ("warmup_cosine", {"warmup_steps": 20}, "a warm-up of 20 steps does not fit in 20 steps"),
    ],
)
def test_bad_input(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_schedule(name, lr=0.1, epochs=2, steps_per_epoch=10, **options)
