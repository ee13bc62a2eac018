"""Workers as tasks of Ray, on a cluster or on a Ray of this machine's own, with parts of GPUs where that is asked for.

Ray starts the task of a worker again, on another node if need be, when its process or its node dies.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks import interruption
from benchmarks.errors import UserError, one_line
from benchmarks.launch.launcher import Launcher, Work, asked_device, needed
from benchmarks.runtime import Runtime, cores

LOCAL = "local"
REACH_SECONDS = 10.0
MOST_SAID = 300
ROUNDING = 1e-9
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""A frame of HTTP/2 that changes none; byte 3 is its kind."""


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
        if gpus_per_worker and gpus_per_worker > 1 and gpus_per_worker % 1:
            raise UserError(
                f"launcher.gpus_per_worker={gpus_per_worker:g}: a part of one GPU, such as 0.5, or whole ones"
            )
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
        return sum(self._fit(node) for node in self._nodes)

    def _fit(self, node: Mapping[str, float]) -> int:
        fit = []
        if self.cpus:
            fit.append(int(node.get("CPU", 0) / self.cpus + ROUNDING))
        if self.gpus:
            each = int(1 / self.gpus + ROUNDING)  # of one GPU; a part of a GPU lies in a single one
            gpus = node.get("GPU", 0)
            fit.append(int(gpus) * each if each else int(gpus / self.gpus))
        return min(fit, default=cores())

    def _connect(self) -> None:
        import ray

        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray of ours tells nobody of itself
        before = signal.getsignal(signal.SIGTERM)
        entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        paths = os.pathsep.join(str(Path(entry).absolute()) for entry in entries if entry)
        try:
            with _quiet_unless_done():
                if self.address != LOCAL:
                    _greet(self.address)
                ray.init(
                    address=self.address,
                    num_cpus=cores() if self.address == LOCAL else None,
                    include_dashboard=False if self.address == LOCAL else None,
                    runtime_env={"env_vars": {"PYTHONPATH": paths} if paths else {}},
                    logging_level=logging.WARNING,
                )
        except Exception as error:  # Ray has many for the same
            said = textwrap.shorten(str(error) or type(error).__name__, MOST_SAID).rstrip(".")
            raise UserError(
                f"Ray can't be started here: {said}"
                if self.address == LOCAL
                else f"no Ray cluster at launcher.address={self.address}: {said}; start one there (`ray start --head`) "
                f"or have one started here (launcher.address={LOCAL})"
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


def _greet(address: str) -> None:
    """See that a Ray may be there: Ray itself would try for minutes.

    What listens there must speak gRPC as Ray does, over HTTP/2, where each side begins with a frame of settings.
    """
    from ray._private.services import canonicalize_bootstrap_address  # what ``auto`` stands for

    if not (found := canonicalize_bootstrap_address(address) if address == "auto" else address):
        return
    host, _, port = found.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return
    with socket.create_connection((host, int(port)), REACH_SECONDS) as talk:
        if os.environ.get("RAY_USE_TLS") == "1":
            return
        talk.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS)
        with suppress(OSError):
            if talk.recv(len(SETTINGS), socket.MSG_WAITALL)[3:4] == SETTINGS[3:4]:
                return
    raise ConnectionError("what answers there is no Ray")


@contextmanager
def _quiet_unless_done() -> Iterator[None]:
    """Hold back what is written to stderr, also by Ray's own threads and not by Python, and drop it if that fails."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held, os.fdopen(os.dup(2), "wb") as stderr:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr.fileno(), 2)
        held.seek(0)
        stderr.write(held.read())


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
