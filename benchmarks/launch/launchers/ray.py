"""Workers as tasks of Ray, on a cluster or on a Ray of this machine's own, with parts of GPUs where that is asked for.

Ray starts the task of a worker again, on another node if need be, when its process or its node dies.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections import Counter
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

from benchmarks import interruption
from benchmarks.errors import UserError, one_line
from benchmarks.launch.launcher import Launcher, Work, asked_device, needed
from benchmarks.runtime import Runtime, cores

LOCAL = "local"
REACH_SECONDS = 10.0


class Ray(Launcher):
    """Tasks of Ray.

    Args:
        address: ``local``: a Ray that is started here and ends with the command; ``auto``: the one that runs on this
            machine; else that of a cluster, as HOST:PORT, which this machine is a node of.
        cpus_per_worker: CPU cores that Ray reserves, and with threads=0 the threads of a worker.
        gpus_per_worker: GPUs that Ray reserves, such as 0.5: two workers share one; null: 1, with device=cpu none.
        retries: how often Ray starts a worker again whose process or node died.
    """

    def __init__(
        self,
        address: str = LOCAL,
        cpus_per_worker: float = 1.0,
        gpus_per_worker: float | None = None,
        retries: int = 3,
    ) -> None:
        if cpus_per_worker < 0 or (gpus_per_worker or 0) < 0 or retries < 0:
            raise UserError("launcher.cpus_per_worker, gpus_per_worker and retries must not be negative")
        self.address, self.cpus, self.gpus, self.retries = address, cpus_per_worker, gpus_per_worker, retries
        self._nodes: list[Mapping[str, float]] = []
        self._tasks: list[Any] = []

    def prepare(self, runtime: Runtime) -> str:
        ray = needed("ray", "ray")
        if self.address == LOCAL:
            import torch

            self._nodes = [{"CPU": cores(), "GPU": torch.cuda.device_count()}]
        else:
            self._connect()
            self._nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        device, self.gpus = asked_device(runtime, self.gpus, any(node.get("GPU") for node in self._nodes))
        if not self._room():
            largest = {name: max(node.get(name, 0) for node in self._nodes) for name in ("CPU", "GPU")}
            raise UserError(
                f"no node of Ray ({self.address}) has the {self.cpus:g} CPUs and {self.gpus:g} GPUs of a worker, the "
                f"most are {largest['CPU']:g} and {largest['GPU']:g}; see launcher.cpus_per_worker, gpus_per_worker"
            )
        return device

    def _room(self) -> int:
        """How many workers the nodes hold at once."""
        needs = {name: need for name, need in (("CPU", self.cpus), ("GPU", self.gpus)) if need}
        fit = [min((node.get(name, 0) / needs[name] for name in needs), default=inf) for node in self._nodes]
        return sum(int(number + 1e-9) if number < inf else cores() for number in fit)

    def _connect(self) -> None:
        import ray

        if ray.is_initialized():
            return
        host, _, port = self.address.rpartition("://")[2].rpartition(":")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray of ours tells nobody of itself
        before = signal.getsignal(signal.SIGTERM)
        entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        paths = os.pathsep.join(str(Path(entry).absolute()) for entry in entries if entry)
        try:
            if port.isdigit():  # Ray itself would try for minutes
                socket.create_connection((host, int(port)), REACH_SECONDS).close()
            ray.init(
                address=self.address,
                num_cpus=cores() if self.address == LOCAL else None,
                include_dashboard=False if self.address == LOCAL else None,
                runtime_env={"env_vars": {"PYTHONPATH": paths} if paths else {}},
                logging_level=logging.WARNING,
            )
        except Exception as error:  # Ray has many for the same
            raise UserError(
                f"no Ray cluster at launcher.address={self.address}: {one_line(error)}"
            ) from error
        finally:
            signal.signal(signal.SIGTERM, before)  # Ray puts its own in the place of the command line's

    def worker_count(self, runtime: Runtime, device: str, cells: int) -> int:
        return runtime.workers or self._room()

    def thread_count(self, runtime: Runtime, device: str) -> int:
        return runtime.threads or max(1, int(self.cpus))

    def start(self, work: Work, count: int) -> None:
        self._connect()
        import ray

        once: Any = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus or 0, max_retries=self.retries)
        worker = once(_live).options(name=f"weightaug {work.group}")
        self._tasks = [worker.remote(work.elsewhere()) for _ in range(count)]

    def alive(self) -> bool:
        return bool(self._left())

    def _left(self) -> list[Any]:
        import ray

        return list(ray.wait(self._tasks, num_returns=len(self._tasks), timeout=0)[1]) if self._tasks else []

    def stop(self) -> None:
        self._cancel(force=False)

    def kill(self) -> None:
        self._cancel(force=True)

    def _cancel(self, force: bool) -> None:
        import ray

        for task in self._left():
            ray.cancel(task, force=force)

    def ended(self) -> str:
        import ray

        reasons: Counter[str] = Counter()
        for task in self._tasks:
            try:
                ray.get(task)
                reasons["nothing free to do"] += 1
            except Exception as error:  # Ray's for a lost process or node, or any of the worker's
                cause = getattr(error, "cause", None) or error
                reasons[f"{type(cause).__name__}: {one_line(cause)}"] += 1
        return ", ".join(f"{count} x {reason}" for reason, count in reasons.items())


def _live(work: Work) -> None:
    """A worker's task. Cancelled, it ends with a checkpoint."""
    try:
        with interruption.handled(signal.SIGINT, signal.SIGTERM):
            work.do()
    except interruption.Interrupted as stop:
        if (
            stop.exit_code == 128 + signal.SIGTERM
        ):  # its machine goes down: for Ray a death, and no cancelling
            os._exit(stop.exit_code)
        raise
