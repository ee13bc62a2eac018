"""A real Slurm of one node, in a temporary folder: jobs are preempted, told to go and cancelled in mid-table."""

from __future__ import annotations

import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from engines.disturbed import CELLS, Record, Table
from engines.slurm_cluster import SlurmCluster

SLURM = ["launcher=slurm", "workers=2", "launcher.cpus_per_worker=1", "launcher.partition=low"]


@contextmanager
def slurm(grace: int = 0) -> Iterator[SlurmCluster]:
    folder = Path(tempfile.mkdtemp(prefix="weightaug-slurm-"))
    try:
        with SlurmCluster(folder, grace) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def record() -> Iterator[Record]:
    with slurm() as cluster:
        version = cluster.ask("sinfo", "--version").split()[1]
    record = Record("slurm", f"Jobs of Slurm are preempted, told to go and cancelled (Slurm {version})")
    yield record
    record.keep()


@pytest.fixture(scope="module")
def undisturbed(record: Record, tmp_path_factory: pytest.TempPathFactory) -> Table:
    table = Table(tmp_path_factory.mktemp("undisturbed"), record)
    table.reproduce("launcher=local", "workers=2")
    table.finish()
    return table


def begin(cluster: SlurmCluster, folder: Path, record: Record, *settings: str) -> Table:
    """The table on Slurm, as far as both workers being in the middle of a cell."""
    table = Table(folder, record, cluster.environment)
    table.reproduce(*SLURM, *settings)
    for cell_id, beat in sorted(
        table.wait(lambda: found if len(found := table.running()) == 2 else {}).items()
    ):
        record(f"cell {cell_id} is {beat['fraction']:.0%} trained, by process {beat['pid']}")
    return table


def restarts(cluster: SlurmCluster, partition: str = "low") -> list[int]:
    """How often each job of the partition went back into the queue."""
    jobs = cluster.ask("scontrol", "--oneliner", "show", "job").splitlines()
    return [int(re.findall(r"Restarts=(\d+)", job)[0]) for job in jobs if f"Partition={partition}" in job]


@pytest.mark.parametrize("grace", [0, 20])
def test_preempted_jobs_change_nothing(
    grace: int, undisturbed: Table, record: Record, tmp_path: Path
) -> None:
    with slurm(grace) as cluster:
        record(f"a Slurm with PreemptMode=REQUEUE and {grace} s of grace")
        table = begin(cluster, tmp_path, record)
        cluster.ask(
            "sbatch", "--partition=high", "--exclusive", f"--output={tmp_path}/high.out", "--wrap=sleep 5"
        )
        record("a job that wants the whole node is submitted to a partition of higher priority")
        table.wait(lambda: restarts(cluster) == [1, 1])
        record("both jobs were preempted and are in the queue again (Slurm: Restarts=1 of each)")
        assert len(table.cards()) < CELLS
        assert "4 of 4 cells finished" in table.finish()
        record("the command ends with exit code 0")
        assert restarts(cluster) == [1, 1]
    table.must_equal(undisturbed)


def test_jobs_whose_time_is_up_go_back_into_the_queue(
    undisturbed: Table, record: Record, tmp_path: Path
) -> None:
    with slurm() as cluster:
        table = begin(cluster, tmp_path, record, "launcher.wait=false")
        errors = table.finish()
        record("the command had ended when its jobs were in the queue")
        (job,) = re.findall(r"Slurm job (\d+): 2 worker", errors)
        assert "weightaug report signnoise/tiny" in errors
        cluster.ask("scancel", "--signal=USR2", job)
        record("the jobs get SIGUSR2, as Slurm sends it before their time is up")
        table.wait(lambda: restarts(cluster) == [1, 1])
        record("both put themselves back into the queue (Slurm: Restarts=1 of each)")
        table.wait(lambda: len(table.cards()) == CELLS)
        assert "SignNoise" in table.report()
    table.must_equal(undisturbed)


def test_a_cell_that_takes_longer_than_its_job_may_is_trained_in_several_lives(
    undisturbed: Table, record: Record, tmp_path: Path
) -> None:
    speed = max(card["cost"]["seconds_per_epoch"] for card in undisturbed.cards().values())
    one = ["--only", "row=signnoise", "--only", "seed=0", f"recipe.epochs={round(90 / speed)}"]
    there, here = Table(tmp_path / "slurm", record), Table(tmp_path / "local", record)
    with slurm() as cluster:
        there.environment = cluster.environment
        there.reproduce(*SLURM, "launcher.time=1", "launcher.notice=5", *one)
        here.reproduce("launcher=local", *one)
        here.finish()
        assert "1 of 1 cells finished" in there.finish()
        jobs = cluster.ask("scontrol", "--oneliner", "show", "job")
        assert re.findall(r" TimeLimit=(\S+)", jobs) == ["00:01:00"]
        (lives,) = restarts(cluster)
    record(
        f"the job's limit of 1 minute ran out {lives} time(s), each time it went back into the queue by itself"
    )
    (card,) = there.cards().values()
    assert card["cost"]["resumed"] == lives > 0
    there.must_equal(here, cells=1)


def test_ctrl_c_cancels_the_jobs_and_leaves_checkpoints(record: Record, tmp_path: Path) -> None:
    with slurm() as cluster:
        table = begin(cluster, tmp_path, record)
        assert table.command
        table.command.send_signal(signal.SIGINT)
        _, errors = table.command.communicate(timeout=60)
        assert table.command.returncode == 130, errors
        assert "weightaug: stopped; " in errors
        assert len(list((tmp_path / "runs" / "work").glob("*/checkpoint.pt"))) == 2
        time.sleep(3)
        jobs = cluster.ask("scontrol", "--oneliner", "show", "job")
        assert re.findall(r"JobState=(\w+)", jobs) == ["CANCELLED", "CANCELLED"]
        assert restarts(cluster) == [0, 0]
    record(
        "Ctrl-C: both jobs are cancelled, both cells have a checkpoint; the command ends with exit code 130"
    )
