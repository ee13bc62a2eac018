"""A Slurm of one node in a folder of its own: munged, slurmctld and slurmd, started and ended with a test.

Needs the programs of Debian's ``slurm-wlm`` and ``munge``, not their configuration, and runs as root or as a user.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

CPUS = 2
START_SECONDS = 60.0
SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

CONFIG = """
ClusterName=proof
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# A job that goes back into the queue waits until its old credential has expired: 120 seconds if nothing is said.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=1,sched_interval=2
MpiDefault=none
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace}
PartitionName=high Nodes={host} PriorityTier=10 PreemptMode=OFF
"""


class SlurmCluster:
    """Slurm with the partitions ``low``, whose jobs are preempted, and ``high``, whose jobs do that.

    Args:
        folder: empty, with a short name, for sockets lie in it.
        grace: seconds that a job is given to go by itself before it is ended.
    """

    def __init__(self, folder: Path, grace: int = 0) -> None:
        self.folder, self.grace = folder, grace
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": SBIN}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> SlurmCluster:
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)  # munged refuses a folder that others may write to
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        controller, node = _free_ports()
        host = socket.gethostname().partition(".")[0]
        values = {"host": host, "controller": controller, "node": node, "user": getpass.getuser()}
        text = CONFIG.format(folder=self.folder, cpus=CPUS, grace=self.grace, **values)
        (self.folder / "slurm.conf").write_text(text)
        try:
            munge = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
            self._start("munged", "--foreground", f"--socket={self.folder}/munge.socket", *munge)
            self._wait(lambda: (self.folder / "munge.socket").exists(), "munged")
            self._start("slurmctld", "-D", "-i")
            self._start("slurmd", "-D", "-N", host)
            self._wait(
                lambda: "idle" in self.ask("sinfo", "--noheader", "--format=%t", check=False), "slurmd"
            )
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if len(self._daemons) == 3:
            self.ask("scancel", "--user", getpass.getuser(), check=False)
            time.sleep(1)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _start(self, name: str, *arguments: str) -> None:
        program = shutil.which(name, path=SBIN)
        assert program, f"there is no {name}; install Debian's packages slurm-wlm and munge"
        with (self.folder / f"{name}.out").open("wb") as said:
            command = [program, *arguments]
            self._daemons.append(
                subprocess.Popen(command, env=self.environment, stdout=said, stderr=subprocess.STDOUT)
            )

    def _wait(self, condition: object, name: str) -> None:
        assert callable(condition)
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            ended = [daemon.args for daemon in self._daemons if daemon.poll() is not None]
            assert not ended and time.monotonic() < deadline, f"{name} does not start:\n{self.logs()}"
            time.sleep(0.2)

    def logs(self) -> str:
        """The last lines of what the daemons said."""
        found = [*self.folder.glob("*.log"), *self.folder.glob("*.out")]
        return "\n".join(f"{path.name}: " + "\n".join(path.read_text().splitlines()[-8:]) for path in found)

    def ask(self, *command: str, check: bool = True) -> str:
        """What a program of Slurm's answers."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]
