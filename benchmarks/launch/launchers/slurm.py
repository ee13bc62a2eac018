"""Workers as the jobs of a Slurm array, submitted with submitit.

A worker that Slurm tells to go, because its time is up or a more important job wants its node, writes a checkpoint
after the step and puts its job back into the queue; where Slurm itself does that, or somebody has cancelled the job,
it just ends. Its cell is continued by whichever worker is first.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import redirect_stderr
from io import StringIO
from typing import Any

from benchmarks import interruption
from benchmarks.errors import UserError, one_line, unknown_name
from benchmarks.launch.launcher import Launcher, Work, asked_device, needed
from benchmarks.runtime import Runtime
from benchmarks.terminal import note

ASK_SECONDS = 3.0
"""Slurm's controller is not asked more often how the jobs are."""
REACH_SECONDS = 60.0
SIGNAL = signal.SIGUSR2
"""What Slurm is to send before the time is up."""
MOST = 256
"""Jobs of an array that submitit lets run at once; each goes on to further cells, so more would be of no use."""
LATER = (
    "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2}); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
"""Starts Python with these signals waiting: they would end a job that is still importing, and for good."""
LIVING = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED", "STOPPED", "SIGNALING")


class Slurm(Launcher):
    """An array of jobs, a worker each.

    Args:
        partition: where; empty: the cluster's default.
        time: minutes that a job may take before it goes back into the queue.
        cpus_per_worker: CPU cores of a job, and with threads=0 the threads of its worker.
        gpus_per_worker: GPUs of a job; null: 1, with device=cpu none.
        memory_gb: memory of a job; null: the cluster's default.
        retries: how often a job puts itself back into the queue.
        notice: seconds before the end of its time at which a job is told.
        wait: whether the command stays until all is done; if not, it ends when the jobs are in the queue.
        options: further ones of sbatch, such as ``launcher.options.account=mine``.
    """

    def __init__(
        self,
        partition: str = "",
        time: int = 720,
        cpus_per_worker: int = 4,
        gpus_per_worker: int | None = None,
        memory_gb: float | None = None,
        retries: int = 20,
        notice: int = 120,
        wait: bool = True,
        options: dict[str, Any] | None = None,
    ) -> None:
        if min(time, cpus_per_worker) < 1 or retries < 0 or notice < 0:
            raise UserError(
                "launcher.time and cpus_per_worker must be at least 1, retries and notice not negative"
            )
        self.partition, self.time, self.cpus, self.gpus = partition, time, cpus_per_worker, gpus_per_worker
        self.memory, self.retries, self.notice, self.wait = memory_gb, retries, notice, wait
        self.options = options or {}
        self._job = ""
        self._states: list[dict[str, str]] = []  # of its jobs, when they were asked last
        self._asked = -ASK_SECONDS
        self._told = ""

    def prepare(self, runtime: Runtime) -> str:
        needed("submitit", "slurm")
        for program in ("sbatch", "srun", "scontrol", "scancel", "sinfo"):
            if shutil.which(program) is None:
                raise UserError(
                    f"launcher=slurm: there is no {program} here; give the command where jobs are submitted"
                )
        partitions = re.findall(
            r"PartitionName=(\S+)", _ask("scontrol", "--all", "--oneliner", "show", "partition")
        )
        if self.partition and not set(self.partition.split(",")) <= set(partitions):
            raise unknown_name("partition of Slurm", self.partition, partitions)
        where = [f"--partition={self.partition}"] if self.partition else []
        resources = _ask("sinfo", "--noheader", "--format=%G", *where)
        device, gpus = asked_device(runtime, self.gpus, "gpu" in resources)
        self.gpus = int(gpus)
        return device

    def worker_count(self, runtime: Runtime, device: str, cells: int) -> int:
        return runtime.workers or min(cells, MOST)

    def thread_count(self, runtime: Runtime, device: str) -> int:
        return runtime.threads or self.cpus

    def start(self, work: Work, count: int) -> None:
        from submitit import SlurmExecutor

        there = work.elsewhere()
        folder = there.runtime.store_folder / "slurm"
        executor = SlurmExecutor(folder, python=shlex.join([sys.executable, "-I", "-S", "-c", LATER]))
        asked: dict[str, Any] = {"job_name": f"weightaug {work.group}", "partition": self.partition or None}
        asked |= {"time": self.time, "cpus_per_task": self.cpus}
        asked |= {
            "gpus_per_node": self.gpus or None,
            "mem": f"{int(self.memory * 1024)}MB" if self.memory else None,
        }
        further = {"requeue": True, "signal": f"{SIGNAL.name[3:]}@{self.notice}", **self.options}
        known = {key: value for key, value in asked.items() if value is not None}
        executor.update_parameters(
            **known,
            srun_args=[f"--cpus-per-task={self.cpus}"],  # which it no longer takes from its job
            additional_parameters=further,
        )
        try:
            with redirect_stderr(StringIO()):  # submitit repeats there what it raises
                jobs = executor.map_array(_live, [there] * count, [self.retries] * count)
        except Exception as error:  # submitit's for what sbatch says, after a head line of its own
            raise UserError(f"Slurm takes no jobs: {_said(error)}") from error
        self._job, self._states, self._told = jobs[0].job_id.partition("_")[0], [], ""
        self._asked = -ASK_SECONDS
        note(f"Slurm job {self._job}: {count} worker(s), logs in {folder}")

    def alive(self) -> bool:
        if self._job and time.monotonic() - self._asked >= ASK_SECONDS:
            self._states = self._ask_states()
            self._asked = time.monotonic()
            self._tell()
        return any(_lives(job) for job in self._states)

    def _ask_states(self) -> list[dict[str, str]]:
        """What Slurm says of each job of the array, or of those that are not told apart yet."""
        try:
            said = _ask("scontrol", "--oneliner", "show", "job", self._job)
        except UserError as error:
            if "Invalid job id" in str(error):  # ended, and forgotten
                return [job for job in self._states if not _lives(job)]
            return self._states or [{"JobState": "PENDING"}]  # the controller is away for a while
        return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in said.splitlines() if line.strip()]

    def _tell(self) -> None:
        """Tell the person when jobs wait, run or end."""
        counts: Counter[str] = Counter()
        for job in self._states:
            why = job.get("Reason", "None") if job["JobState"] == "PENDING" else "None"
            counts[job["JobState"].lower() + ("" if why == "None" else f" ({why})")] += 1
        told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        if told != self._told:
            self._told = told
            note(f"Slurm job {self._job}: {told}")

    def stop(self) -> None:
        if self._job:
            _ask("scancel", self._job)

    def kill(self) -> None:
        if self._job and self.alive():
            _ask("scancel", "--signal=KILL", self._job)

    def ended(self) -> str:
        states = sorted({f"{job['JobState']} (exit code {job.get('ExitCode', '?')})" for job in self._states})
        return f"Slurm job {self._job}: {', '.join(states) or 'forgotten by Slurm'}; see its logs"


def _lives(job: dict[str, str]) -> bool:
    return job["JobState"].startswith(LIVING)


def _ask(*command: str) -> str:
    """What one of Slurm's programs answers.

    Raises:
        UserError: with its own words, if it fails.
    """
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=REACH_SECONDS
        ).stdout
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"Slurm does not answer for {REACH_SECONDS:g} s ({command[0]}); is its controller up?"
        ) from error
    except subprocess.CalledProcessError as error:
        last = next(iter(_lines(error.stderr)[::-1]), one_line(error))  # the first ones are of other tries
        raise UserError(
            f"Slurm can't be used: {last}; give the command on a machine of a cluster whose controller is up, where "
            "`sinfo` works"
        ) from error


def _said(error: Exception) -> str:
    """What sbatch said, from submitit's error: a cluster's own rules come before a general line."""
    return "; ".join(_lines("\n".join(re.findall(r".*error:.*", str(error))))) or one_line(error)


def _lines(said: str) -> list[str]:
    """Without the name of the program."""
    lines = (re.sub(r"^\w+(:? (error|fatal))?: ", "", line.strip()) for line in said.splitlines())
    return [line for line in lines if line]


def _live(work: Work, retries: int) -> None:
    """A worker's job."""
    try:
        with interruption.handled(signal.SIGTERM, SIGNAL):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, SIGNAL})  # see LATER
            work.do()
    except interruption.Interrupted as stop:
        _go_back(retries)
        sys.exit(stop.exit_code)


def _go_back(retries: int) -> None:
    """Put this job back into the queue, unless it is there already, is cancelled or has been there often enough.

    A job that is to make room is told some time before; if it ended by itself then, Slurm would not start it again.
    """
    job, before = os.environ["SLURM_JOB_ID"], int(os.environ.get("SLURM_RESTART_COUNT", 0))
    running = "JobState=RUNNING" in _ask("scontrol", "--oneliner", "show", "job", job)
    if running and before < retries:
        _ask("scontrol", "requeue", job)
