"""A process that measures: by itself, so that its memory and its threads are those of a worker that trains cells."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.errors import UserError
from benchmarks.planning.kinds import Kind

WARM_UP = 2
LEAST, MOST = 3, 200
"""Steps, or batches of an evaluation, that are timed."""
WAIT_SECONDS = 100.0


class MeasuringProcess:
    """The side of the process that asks. All of its methods but :meth:`begin` wait for the answer.

    Args:
        device: torch's name of it.
        engine: as in :mod:`benchmarks.runtime`.
    """

    def __init__(self, device: str, engine: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, device, engine), daemon=True)
        self._begun = time.monotonic()
        self._process.start()
        theirs.close()

    def ready(self) -> dict[str, Any]:
        """``seconds`` until it could work, and the ``bytes`` that it took then."""
        return {"bytes": self.end(), "seconds": time.monotonic() - self._begun}

    def ask(self, what: str, *arguments: Any) -> Any:
        self.begin(what, *arguments)
        return self.end()

    def begin(self, what: str, *arguments: Any) -> None:
        try:
            self._pipe.send((what, arguments))
        except OSError as error:
            raise UserError(f"a measuring process has ended: {error}") from error

    def end(self) -> Any:
        """The answer to what was begun.

        Raises:
            MemoryError: the device has no room.
            UserError: anything else went wrong, the process was killed included.
        """
        if not self._pipe.poll(WAIT_SECONDS):
            raise UserError(f"a measuring process gave no answer in {WAIT_SECONDS:.0f} s")
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise MemoryError(
                "a measuring process was killed, as the system does when memory runs out"
            ) from None
        if isinstance(answer, MemoryError | UserError):
            raise answer
        return answer

    def close(self) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, device: str, engine: str) -> None:
    from benchmarks import processor
    from benchmarks.errors import one_line
    from benchmarks.memory import is_out_of_memory

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
    processor.keep_memory()
    side = Measurer(device, engine)
    answer: Any = resident_bytes()
    with contextlib.suppress(EOFError, OSError):  # who asked is gone
        while True:
            pipe.send(answer)
            what, arguments = pipe.recv()
            try:
                answer = getattr(side, what)(*arguments)
            except Exception as error:
                answer = UserError(f"{type(error).__name__}: {one_line(error)}")
                if is_out_of_memory(error):
                    answer = MemoryError(one_line(error))


class Measurer:
    """The side of the process that measures; its public methods are what can be asked."""

    def __init__(self, device: str, engine: str) -> None:
        import benchmarks.training.trainer  # noqa: F401 - a part of the start, not of the first cell

        self.device, self.engine, self.on_gpu = device, engine, device.startswith("cuda")
        self.trainer: Any = None
        _first_step(device)

    def room(self, precision: str) -> tuple[float, float]:
        """Free bytes of the device, and its FLOP/s of a large matrix product in ``precision``."""
        import torch

        from benchmarks.cost.utilisation import matmul_rate
        from benchmarks.evaluation.evaluate import free_memory

        return float(free_memory(torch.device(self.device))), matmul_rate(self.device, precision)

    def load(self, kind: Kind, batch: int, steps: int, threads: int) -> dict[str, Any]:
        """Build the training of ``kind`` in batches of ``batch`` images and run its first steps.

        Args:
            steps: of a whole run; the engine is chosen by it.
        """
        import torch

        from benchmarks.training.trainer import Trainer

        self.trainer = None
        self._forget()
        torch.set_num_threads(threads)
        cell = replace(kind.cell, recipe=replace(kind.cell.recipe, batch_size=batch))
        source = kind.made_up(2 * batch, min(batch, cell.evaluation.batch_size))
        data = source.load(Path()).to(self.device)
        begun = self._now()
        self.trainer = Trainer(cell, source, data, self.device, self.engine)
        self.trainer.engine.steps = steps
        self.trainer.model.train()
        self._batches = self._endless()
        self._step()
        seconds = self._now() - begun
        for _ in range(WARM_UP - 1):
            self._step()
        return {"start_seconds": seconds, "engine": self.trainer.engine.ran}

    def step_seconds(self, seconds: float) -> float:
        """Mean seconds of a step, its batch included, over some ``seconds``."""
        return self._mean(self._step, seconds)

    def evaluated_per_second(self, seconds: float) -> float:
        """Test images a second, forwards, in the method's first mode."""
        trainer = self.trainer
        model, method = trainer.model, trainer.method
        x = trainer.data.normalise(trainer.data.test.images)
        state = method.state_dict()
        model.eval()
        method.predict(x, method.modes[0])
        each = self._mean(lambda: method.predict(x, method.modes[0]), seconds)
        model.train()
        method.load_state_dict(state)
        return len(x) / each

    def run(self, seconds: float, threads: int) -> float:
        """Steps a second over ``seconds``, while others may run too."""
        import torch

        torch.set_num_threads(threads)
        begun, steps = self._now(), 0
        while self._now() - begun < seconds or not steps:
            self._step()
            steps += 1
        return steps / (self._now() - begun)

    def peak_bytes(self) -> float | None:
        """The most memory since :meth:`load`: of the device, or of the whole process; None if nobody tells."""
        if self.on_gpu:
            import torch

            return float(torch.cuda.max_memory_reserved(self.device))
        return peak_resident_bytes()

    def _step(self) -> None:
        self.trainer.step(*next(self._batches))

    def _endless(self) -> Any:
        from benchmarks.data.batches import epoch_batches

        trainer, epoch = self.trainer, 0
        while True:
            yield from epoch_batches(
                trainer.data, trainer.cell.recipe, trainer.cell.seed, epoch, trainer.source.num_classes
            )
            epoch += 1

    def _mean(self, work: Callable[[], object], seconds: float) -> float:
        begun, times = self._now(), 0
        while times < LEAST or (times < MOST and self._now() - begun < seconds):
            work()
            times += 1
        return (self._now() - begun) / times

    def _now(self) -> float:
        if self.on_gpu:
            import torch

            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _forget(self) -> None:
        """Give back what the last kind took, and begin its peak anew."""
        from benchmarks.memory import release

        gc.collect()
        release()
        if self.on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats(self.device)
            return
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now


def _first_step(device: str) -> None:
    """A step of a network of one layer: what torch imports and sets up for its first one is no part of a cell's."""
    import torch

    layer = torch.nn.Conv2d(1, 1, 1, device=device)
    optimizer = torch.optim.SGD(layer.parameters())
    layer(torch.zeros(1, 1, 1, 1, device=device)).sum().backward()
    optimizer.step()


def resident_bytes() -> float:
    import psutil

    return float(psutil.Process(os.getpid()).memory_info().rss)


def peak_resident_bytes() -> float | None:
    """Linux alone tells a peak that can be begun anew."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    line = next(text for text in status.read_text().splitlines() if text.startswith("VmHWM:"))
    return float(line.split()[1]) * 1024
