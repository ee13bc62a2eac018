"""Workers as processes of this machine, each with GPUs of its own where there are several."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from typing import Any

from benchmarks import interruption
from benchmarks.launch.group import Group, end_with
from benchmarks.launch.launcher import Launcher, Work
from benchmarks.runtime import Runtime

VISIBLE = "CUDA_VISIBLE_DEVICES"


class Local(Launcher):
    """Processes that are started here and end with the command, even if that is killed."""

    restarts = True

    def __init__(self) -> None:
        self._group = Group()

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
        each = work.runtime.devices
        self._group = Group([
            context.Process(
                target=_live,
                # Several workers share a GPU where there are more of them; those with several GPUs never do.
                args=(work, [gpus[(number * each + i) % len(gpus)] for i in range(each if gpus else 0)], os.getpid()),
                daemon=True,
            )
            for number in range(count)
        ])  # fmt: skip
        self._group.start()

    def alive(self) -> bool:
        return self._group.alive()

    def stop(self) -> None:
        self._group.stop()

    def kill(self) -> None:
        self._group.kill()

    def ended(self) -> str:
        return f"exit codes {', '.join(sorted(map(str, set(self._group.exit_codes))))}"


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    named = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return named or [str(number) for number in range(torch.cuda.device_count())]


def _live(work: Work, gpus: list[str], parent: int) -> None:
    """A worker's process. ``gpus``: the only ones that it sees, as ``cuda``."""
    if gpus:
        os.environ[VISIBLE] = ",".join(gpus)  # in time, for nothing has asked for a GPU in this process yet
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends the workers
    multiprocessing.current_process().daemon = False  # may start processes, which load streams
    try:
        with interruption.handled(signal.SIGTERM):
            end_with(parent)
            work.do()
    except interruption.Interrupted as stop:
        sys.exit(stop.exit_code)
