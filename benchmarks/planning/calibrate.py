"""`weightaug calibrate`: how fast this machine is, how much its cells take, and how many at once are best."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from benchmarks.cell import Cell
from benchmarks.data.dataset import Source
from benchmarks.errors import UserError
from benchmarks.planning.calibration import Calibration, Figures, here
from benchmarks.planning.kinds import Kind, work_of
from benchmarks.planning.memory import shown
from benchmarks.planning.need import Need, need_of
from benchmarks.planning.packing import ROUNDS, NoMoreError, Packing, find_packing
from benchmarks.planning.worker import MeasuringProcess
from benchmarks.results.provenance import versions
from benchmarks.runtime import cores

SECONDS = 90.0
"""How long all takes, about; what does not come in is derived."""
KINDS_SHARE = 0.5
"""Of that time goes to the kinds, the rest to the packing."""
TRIED_SECONDS = (1.0, 6.0)
"""So long at least and at most a kind is measured, after its first steps."""
WINDOW_SECONDS = (0.3, 3.0)
"""Likewise, a packing each time."""
USED_SHARE = 0.5
"""Of the free memory a measured kind may take, by what is computed."""
REACHED_SHARE = 0.2
"""A training step may be this slow, relative to large matrix products, when it is judged whether to try it."""
MOST_AT_ONCE = 16
Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """A kind that is wanted, and how much of it."""

    kind: Kind
    need: Need
    steps: int  # of one cell; 0 where the size of its data set is not known
    flops: float  # of all cells of the kind, training


def asked_of(cells: Iterable[tuple[Cell, Source]]) -> list[Asked]:
    """The kinds of these cells: of each method the one with the most work, then the others, likewise."""
    found: dict[str, Asked] = {}
    for cell, source in cells:
        kind, work = Kind.of(cell, source), work_of(cell, source)
        steps = work.steps if work else 0
        before = found.get(kind.key)
        need = before.need if before else need_of(kind)
        flops = (before.flops if before else 0.0) + need.step_flops * max(steps, 1)
        found[kind.key] = Asked(kind, need, max(steps, before.steps if before else 0), flops)
    ordered = sorted(found.values(), key=lambda asked: -asked.flops)
    first = {asked.kind.cell.method.name: asked for asked in reversed(ordered)}
    return sorted(ordered, key=lambda asked: asked is not first[asked.kind.cell.method.name])


class Calibrating:
    """Measures kinds on a device, the heaviest first, until the time is over.

    Args:
        device: torch's name of it.
        engine: as in :mod:`benchmarks.runtime`; ``auto`` is eager on a CPU here, where compiling takes as long as
            all of this.
        seconds: how long it may take, about.
        say: is told what goes on.
        threads: of each process on the CPU; 0: the cores divided among them.
        keep: is given all that was measured so far, after each measurement.
    """

    def __init__(
        self,
        device: str,
        engine: str,
        seconds: float,
        say: Say,
        threads: int = 0,
        keep: Callable[[Calibration], object] = lambda found: None,
    ) -> None:
        self.device, self.say, self.threads, self.keep = device, say, threads, keep
        self.engine = "eager" if engine == "auto" and device == "cpu" else engine
        self.seconds, self.begun = seconds, time.monotonic()
        self.workers: list[MeasuringProcess] = []
        self.loaded = 0  # so many of the workers have what the packing is measured with

    def calibrate(self, asked: list[Asked], before: Collection[str] = ()) -> Calibration:
        """
        Args:
            before: the kinds that were measured on this machine before: the others come first.
        """
        try:
            self.workers.append(MeasuringProcess(self.device, self.engine))
            ready = self.workers[0].ready()
            found = Calibration(
                here(self.device),
                versions()["torch"],
                datetime.now(UTC).isoformat(timespec="seconds"),
                ready["seconds"],
                ready["bytes"],
            )
            for one in sorted(asked, key=lambda one: one.kind.key in before):
                figures = self._kind(one, len(asked), bool(found.kinds))
                if figures:
                    found.kinds[one.kind.key] = figures
                    self.keep(found)
            packed = next((one for one in asked if one.kind.key in found.kinds), None)
            if packed is None:
                raise UserError(
                    "no kind of cell could be measured here, not even with a small batch; choose a smaller scale "
                    "(--scale reduced, --scale smoke), or give it longer (--seconds)"
                )
            try:
                found.packings[packed.kind.key] = self._packing(packed, found.kinds[packed.kind.key])
            except NoMoreError as error:
                self.say(f"no packing was found: {error}")
            for one in asked:
                if one.kind.key not in found.kinds:
                    derived = found.derived(one.kind, one.need)
                    assert derived is not None  # something was measured
                    found.kinds[one.kind.key] = derived
            return found
        finally:
            for worker in self.workers:
                worker.close()

    def _left(self, share: float) -> float:
        return share * self.seconds - (time.monotonic() - self.begun)

    def _kind(self, asked: Asked, of: int, others: bool) -> Figures | None:
        """Measured, or None where there is no room, or no time after ``others``."""
        least, most = TRIED_SECONDS
        seconds = min(max(KINDS_SHARE * self.seconds / of, least), most)
        if others and self._left(KINDS_SHARE) < seconds:
            return None
        kind, worker = asked.kind, self.workers[0]
        self.say(f"measuring {kind.label}")
        try:
            batch = self._batch(asked, seconds)
            if batch is None:
                self.say(f"{kind.label}: too much for this device; derived from others")
                return None
            started = worker.ask("load", kind, batch, asked.steps, self._threads(1))
            step = worker.ask("step_seconds", 0.6 * seconds)
            evaluated = worker.ask("evaluated_per_second", 0.3 * seconds)
            memory = worker.ask("peak_bytes")
        except (MemoryError, UserError) as error:
            self.say(f"{kind.label}: not measured ({error})")
            self._replace_first()
            return None
        whole = kind.cell.recipe.batch_size
        return Figures(
            label=kind.label,
            method=kind.method_key,
            batch=batch,
            step_seconds=step * whole / batch,
            evaluated_per_second=evaluated,
            start_seconds=started["start_seconds"],
            memory_bytes=memory,
            computed=asked.need.memory,
            engine=started["engine"],
            flops=asked.need.step_flops,
            evaluation_flops=asked.need.image_flops,
        )

    def _replace_first(self) -> None:
        """A worker that ran out of memory may be gone, or keep what it took."""
        self.workers.pop(0).close()
        self.workers.insert(0, MeasuringProcess(self.device, self.engine))
        self.workers[0].ready()

    def _batch(self, asked: Asked, seconds: float) -> int | None:
        """The kind's batch, or the largest half, quarter, ... that this device can be expected to do a few steps of."""
        free, rate = self.workers[0].ask("room", asked.kind.cell.recipe.precision)
        memory, whole = asked.need.memory, asked.kind.cell.recipe.batch_size
        batch = whole
        while True:
            fixed = memory.total - memory.batch
            fits = fixed + memory.batch * batch / whole <= USED_SHARE * free
            quick = asked.need.step_flops * batch / whole / (REACHED_SHARE * rate) <= seconds
            if fits and quick:
                return batch
            batch //= 2
            if batch < max(2, 2 * asked.kind.sub_batches):  # BatchNorm takes no sub-batch of one
                return None

    def _threads(self, workers: int) -> int:
        return self.threads or max(1, cores() // workers)

    def _packing(self, asked: Asked, figures: Figures) -> Packing:
        """That of one kind, the one with the most work: the processes share the device as those that train do."""
        most = MOST_AT_ONCE if self.device != "cpu" else cores()
        counts = [n for n in (1, 2, 4, 8, 16) if n <= min(most, cores())]
        least, longest = WINDOW_SECONDS
        window = self._left(1.0) / (3 * ROUNDS * max(1, len(counts) - 1))
        window = min(
            max(window, least, figures.step_seconds * figures.batch / asked.kind.cell.recipe.batch_size),
            longest,
        )
        self.say(f"packing {figures.label}")

        def rate(workers: int) -> float:
            self._ready(workers, asked, figures, 2 * ROUNDS * window)
            chosen = self.workers[:workers]
            try:
                for worker in chosen:
                    worker.begin("run", window, self._threads(workers))
                return sum(worker.end() for worker in chosen)
            except (MemoryError, UserError) as error:
                raise NoMoreError(str(error)) from error

        return find_packing(counts, rate)

    def _ready(self, count: int, asked: Asked, figures: Figures, seconds: float) -> None:
        """As many workers with the kind loaded; raises :class:`NoMoreError`."""
        if count <= self.loaded:
            return
        if count > 1 and self._left(1.0) < seconds + figures.start_seconds:
            raise NoMoreError("the time for measuring was over; --seconds gives more")
        try:
            free, _ = self.workers[0].ask("room", asked.kind.cell.recipe.precision)
            need = figures.memory_bytes or figures.computed.total
            if need * (count - max(self.loaded, 1)) > free:
                raise NoMoreError(f"{shown(need)} each, {shown(free)} are free")
            new = [MeasuringProcess(self.device, self.engine) for _ in range(count - len(self.workers))]
            self.workers += new
            for worker in new:
                worker.ready()
            for worker in self.workers[self.loaded : count]:
                worker.begin("load", asked.kind, figures.batch, asked.steps, self._threads(count))
            for worker in self.workers[self.loaded : count]:
                worker.end()
            self.loaded = count
        except (MemoryError, UserError) as error:
            raise NoMoreError(str(error)) from error
