"""Workers as processes of this machine, each with a GPU of its own where there are several."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any

from benchmarks import interruption
from benchmarks.launch.launcher import POLL_SECONDS, STOP_SECONDS, Launcher, Work
from benchmarks.runtime import Runtime

VISIBLE = "CUDA_VISIBLE_DEVICES"


class Local(Launcher):
    """Processes that are started here and end with the command, even if that is killed.

    Args:
        retries: how often new workers are started where some died with cells left to do.
    """

    def __init__(self, retries: int = 2) -> None:
        self.restarts = retries
        self._processes: list[BaseProcess] = []

    def prepare(self, runtime: Runtime) -> str:
        return runtime.resolve_device()

    def hardware(self, device: str) -> dict[str, Any]:
        from benchmarks.results.provenance import hardware

        return hardware(device)

    def worker_count(self, runtime: Runtime, device: str, cells: int) -> int:
        return runtime.worker_count(device)

    def thread_count(self, runtime: Runtime, device: str) -> int:
        return runtime.thread_count(device)

    def start(self, work: Work, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        gpus = visible_gpus() if work.device == "cuda" else []
        self._processes = []
        for number in range(count):
            gpu = gpus[number % len(gpus)] if gpus else None
            process = context.Process(target=_live, args=(work, gpu, os.getpid()), daemon=True)
            process.start()
            self._processes.append(process)

    def alive(self) -> bool:
        return any(process.is_alive() for process in self._processes)

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()

    def kill(self) -> None:
        for process in self._processes:
            process.kill()

    def ended(self) -> str:
        return f"exit codes {', '.join(sorted({str(process.exitcode) for process in self._processes}))}"


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    named = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return named or [str(number) for number in range(torch.cuda.device_count())]


def _live(work: Work, gpu: str | None, parent: int) -> None:
    """A worker's process. ``gpu``: the only one that it sees, as ``cuda``."""
    if gpu is not None:
        os.environ[VISIBLE] = gpu  # in time, for nothing has asked for a GPU in this process yet
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends the workers
    multiprocessing.current_process().daemon = False  # may start processes, which load streams
    try:
        with interruption.handled(signal.SIGTERM):
            Thread(target=_end_with, args=(parent,), daemon=True).start()
            work.do()
    except interruption.Interrupted as stop:
        sys.exit(stop.exit_code)


def _end_with(parent: int) -> None:
    """End this process, with a checkpoint, when its parent is gone, also when the parent was killed."""
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)
