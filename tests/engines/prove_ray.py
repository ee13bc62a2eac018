"""A real Ray cluster of two nodes on this machine: one is killed in mid-table, and the table is the same."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import ROOT
from engines.disturbed import Record, Table

from benchmarks.config import load
from benchmarks.launch.launcher import Work
from benchmarks.launch.launchers.local import VISIBLE

OBJECTS = 80 * 2**20  # bytes of Ray's object store, which holds nothing here
LOOK_SECONDS = 2.0
LOST = "the node's processes are killed (SIGKILL), as by a loss of power"


@dataclass(frozen=True)
class Look(Work):
    """Instead of training, each worker leaves when it lived and what it was given."""

    def do(self) -> None:
        import ray

        begun = time.time()
        time.sleep(LOOK_SECONDS)
        given = ray.get_runtime_context().get_assigned_resources()
        seen = {"gpus": os.environ.get(VISIBLE), "given": given, "begun": begun, "ended": time.time()}
        (self.runtime.store_folder / f"{os.getpid()}-{begun}").write_text(json.dumps(seen))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes with a CPU each; the second can be lost."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    before = signal.getsignal(signal.SIGTERM)
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "object_store_memory": OBJECTS, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1, object_store_memory=OBJECTS)
    try:
        yield cluster
    finally:
        cluster.shutdown()
        signal.signal(signal.SIGTERM, before)  # Ray put its own in that place


def processes(node: Any) -> list[psutil.Process]:
    """The processes of a node, its workers included."""
    own = [psutil.Process(info.process.pid) for infos in node.all_processes.values() for info in infos]
    return [*own, *(child for process in own for child in process.children(recursive=True))]


def test_a_lost_node_changes_nothing(cluster: Any, tmp_path: Path) -> None:
    import ray

    record = Record("ray", f"A node of a Ray cluster is lost in mid-table (Ray {ray.__version__})")
    undisturbed = Table(tmp_path / "undisturbed", record)
    undisturbed.reproduce("launcher=local", "workers=2")
    undisturbed.finish()
    (lost,) = cluster.worker_nodes
    there = Table(tmp_path / "ray", record)
    there.reproduce("launcher=ray", f"launcher.address={cluster.address}")

    def running_on_lost() -> tuple[str, dict[str, Any]] | None:
        pids = {process.pid for process in processes(lost)}
        return next((found for found in there.running().items() if found[1]["pid"] in pids), None)

    cell_id, beat = there.wait(running_on_lost)
    hit = processes(lost)
    for process in hit:
        process.kill()
    assert os.getpid() not in {process.pid for process in hit}
    record(
        f"cell {cell_id} is {beat['fraction']:.0%} trained on the second node, by process {beat['pid']}; {LOST}"
    )
    assert cell_id not in there.cards()
    errors = there.finish()
    assert "4 of 4 cells finished" in errors
    record("the command ends with exit code 0")
    there.must_equal(undisturbed)
    assert there.cards()[cell_id]["cost"]["resumed"] == 1
    record.keep()


def test_two_workers_share_a_gpu(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of Ray, on a node that only says that it has a GPU."""
    import ray

    cluster.add_node(num_cpus=4, num_gpus=1, object_store_memory=OBJECTS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, ROOT / "tests", Path(__file__).parent))))
    address, store = f"launcher.address={cluster.address}", f"store={tmp_path}"
    cell, runtime = load(["launcher=ray", address, "launcher.gpus_per_worker=0.5", "device=auto", store])
    launcher = runtime.launcher.build()
    try:
        assert launcher.prepare(runtime) == "cuda"
        assert launcher.worker_count(runtime, "cuda", 9) == 2
        launcher.start(Look((cell,), runtime, "cuda", 1, "group", "command"), 4)
        while launcher.alive():
            time.sleep(0.1)
        assert launcher.ended() == "4 x nothing free to do"
    finally:
        ray.shutdown()
    seen = [json.loads(path.read_text()) for path in tmp_path.iterdir()]
    assert [one["gpus"] for one in seen] == ["0"] * 4
    assert all(one["given"] == {"CPU": 1.0, "GPU": 0.5} for one in seen)
    at_once = [sum(one["begun"] <= other["begun"] < one["ended"] for one in seen) for other in seen]
    assert max(at_once) == 2
