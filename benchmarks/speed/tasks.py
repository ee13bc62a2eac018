"""What is measured for the speed report, the most wanted first, until the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.errors import one_line
from benchmarks.speed.layouts import forms, layouts
from benchmarks.speed.measure import CHECKED, METHODS, Device, corruptions, epoch, limits, losses, step
from benchmarks.speed.others import loader, sam


@dataclass(frozen=True)
class Task:
    """One measurement: a row of a ``part`` of the report, or the whole part."""

    part: str
    what: str
    run: Callable[[], dict[str, Any]]


def tasks(device: Device) -> Iterator[Task]:
    """All of a device's. What has to be compiled comes last, with the fastest engine and precision first."""
    eager, *others = device.sizes.engines
    yield Task("limits", "all", partial(limits, device))
    yield from _of_engine(device, eager)
    yield Task("others", "SAM", partial(sam, device))
    yield Task("others", "loader", partial(loader, device))
    for shape, layer in forms(device):
        yield Task("layouts", f"{layer} on {shape}", partial(layouts, device, shape, layer))
    yield Task("corruptions", "all", partial(corruptions, device))
    for engine in reversed(others):
        yield from _of_engine(device, engine)


def _of_engine(device: Device, engine: str) -> Iterator[Task]:
    """In the fastest precision, then whether the engine's losses are right, then in the others."""
    fastest, *others = reversed(device.sizes.precisions)
    yield from _in_precision(device, engine, fastest)
    for method in CHECKED:
        yield Task("losses", f"{engine}, {method}", partial(losses, device, engine, method))
    for precision in others:
        yield from _in_precision(device, engine, precision)


def _in_precision(device: Device, engine: str, precision: str) -> Iterator[Task]:
    name = f"{precision}, {engine}"
    yield Task("epochs", name, partial(epoch, device, precision, engine))
    for method in METHODS:
        yield Task("steps", f"{name}, {method}", partial(step, device, precision, engine, method))


def measure(
    device: Device,
    save: Callable[[dict[str, Any]], None] = lambda found: None,
    say: Callable[[str], None] = lambda text: None,
    seconds: float = float("inf"),
) -> dict[str, Any]:
    """The rows of every part, and what ``failed`` and what was ``left_out``.

    Args:
        save: gets all that there is after each measurement, so that none is lost if the next takes for ever.
        seconds: none but the first is begun later.
    """
    todo = list(tasks(device))
    found: dict[str, Any] = {
        "width": device.sizes.width,
        "images": device.sizes.images,
        **{task.part: [] for task in todo},
        "failed": [],
        "left_out": [{"part": task.part, "what": task.what} for task in todo],
    }
    begun = time.monotonic()
    for number, task in enumerate(todo):
        if number and time.monotonic() - begun > seconds:
            break
        say(f"{task.part}: {task.what}")
        entry = {"part": task.part, "what": task.what}
        try:
            found[task.part].append(task.run())
        except Exception as error:  # it must not take the others' minutes with it
            found["failed"].append({**entry, "why": f"{type(error).__name__}: {one_line(error)}"})
        found["left_out"].remove(entry)
        save(found)
    return found
