"""The way to the device: what waits for what, on a made-up GPU with a clock of its own, and its idle time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.data import transfer
from benchmarks.data.transfer import AHEAD, Feed
from weightaug.transfer import send

READING, COPYING = 3.0, 1.0  # seconds a batch


class Machine:
    """A program's time, and the time at which each stream of its GPU has done all that it was asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.streams: list[Stream] = []
        self.used: list[tuple[Any, Any]] = []

    def torch(self) -> Any:
        """In the place of the module ``torch``."""
        steps = self.stream()
        cuda = SimpleNamespace(
            Stream=lambda device: self.stream(),
            Event=lambda enable_timing: Event(self),
            current_stream=lambda device: steps,
            stream=lambda stream: nullcontext(),
        )
        return SimpleNamespace(cuda=cuda, empty=self.empty, uint8=torch.uint8)

    def stream(self) -> Stream:
        self.streams.append(Stream(self))
        return self.streams[-1]

    def empty(self, shape: Any, dtype: Any, device: Any) -> Any:
        machine = self

        class OnGpu(Tensor):
            def copy_(self, source: Tensor, non_blocking: bool = False) -> Any:  # type: ignore[override]
                assert non_blocking
                machine.streams[1].work(COPYING)
                return super().copy_(source)

            def record_stream(self, stream: Stream) -> None:
                machine.used.append((self, stream))

        return torch.zeros(shape, dtype=dtype).as_subclass(OnGpu)


class Stream:
    def __init__(self, machine: Machine) -> None:
        self.machine, self.done = machine, 0.0

    def work(self, seconds: float) -> None:
        self.done = max(self.done, self.machine.now) + seconds

    def wait_stream(self, other: Stream) -> None:
        self.done = max(self.done, other.done)


class Event:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def record(self, stream: Stream) -> None:
        self.at = max(stream.done, self.machine.now)

    def synchronize(self) -> None:
        self.machine.now = max(self.machine.now, self.at)

    def elapsed_time(self, other: Event) -> float:
        assert self.at <= other.at <= self.machine.now
        return 1000 * (other.at - self.at)


@pytest.mark.parametrize(
    ("step", "waited"),
    [
        (10.0, READING + COPYING),  # only for the first batch
        (2.0, READING + COPYING + 4 * (READING + COPYING - 2.0 - COPYING)),
    ],
)
def test_a_gpu_is_fed_beside_its_work_and_its_idle_time_is_counted(
    step: float, waited: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine()
    monkeypatch.setattr(transfer, "torch", machine.torch())
    pixels = torch.arange(5 * 6 * 12, dtype=torch.uint8).view(30, 3, 2, 2)

    def pieces() -> Iterator[Tensor]:
        for piece in pixels.split(6):
            machine.now += READING
            yield piece

    feed = Feed(pieces(), SimpleNamespace(type="cuda"))  # type: ignore[arg-type]
    steps = machine.streams[0]
    begun: list[float] = []
    for number in range(5):
        images = feed.batch(6)
        assert torch.equal(torch.Tensor(images), pixels[6 * number : 6 * number + 6].float())
        assert machine.used[-1][1] is steps
        assert steps.done >= machine.streams[1].done  # the step begins when its images are there
        begun.append(max(steps.done, machine.now))
        if number > AHEAD:
            assert machine.now >= begun[number - AHEAD - 1]  # no more than so many steps wait
        steps.work(step)
    feed.end()
    assert feed.waited == pytest.approx(waited)


def test_in_memory_the_time_of_reading_is_waiting() -> None:
    ticks = iter([0.0, 3.0, 10.0, 14.0])
    pixels = torch.arange(84, dtype=torch.uint8).view(7, 3, 2, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.data.transfer.time.perf_counter", lambda: next(ticks))
        feed = Feed(iter(pixels.split(2)), torch.device("cpu"))
        assert torch.equal(feed.batch(4), pixels[:4]) and torch.equal(feed.batch(3), pixels[4:])
        feed.end()
    assert feed.waited == 7.0


def test_to_a_gpu_only_page_locked_memory_is_sent() -> None:
    calls: list[Any] = []

    class Source:
        device = torch.device("cpu")

        def pin_memory(self) -> Source:
            calls.append("pinned")
            return self

        def to(self, device: Any, non_blocking: bool = False) -> None:
            calls.append((device.type, non_blocking))

    send(Source(), SimpleNamespace(type="cuda"))  # type: ignore[arg-type]
    assert calls == ["pinned", ("cuda", True)]
    assert send(torch.ones(2), torch.device("cpu")).tolist() == [1, 1]
