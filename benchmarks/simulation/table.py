"""A table filled by many workers in simulated time, with the workers' and the store's own code, and what came of it."""

from __future__ import annotations

import json
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.launch.candidates import Candidates
from benchmarks.launch.workers import settle
from benchmarks.results.card import COSTS, MEASURED, REQUIRED, SCHEMA
from benchmarks.results.code import Code
from benchmarks.results.heartbeat import Heartbeat
from benchmarks.results.lease import Holder, Lease, LeaseLostError, Leases
from benchmarks.results.store import Store
from benchmarks.simulation.processes import Process, SimulatedTime
from benchmarks.simulation.shared_folder import Conditions, Host, Server, SharedFolder

FOLDER = Path("/store")
BEAT_SECONDS = 15.0
CHECKPOINT_SECONDS = 60.0
RESTART_SECONDS = 30.0  # until a dead worker is started again
LEASE_SECONDS = 60.0
WATCH_SECONDS = 100.0
RETRIES = 2


@dataclass(frozen=True)
class Scenario:
    """What is simulated. Seconds; shares of the cells."""

    cells: int = 20_000
    workers: int = 200
    workers_a_host: int = 8
    cell_seconds: float = 60.0  # on average, distributed exponentially
    worker_lifetime: float = 3000.0  # likewise, until it is killed
    host_lifetime: float = 50_000.0  # likewise, until it starts anew with all its workers
    fails_once: float = 0.01
    fails_always: float = 0.002
    kills_always: float = 0.001
    conditions: Conditions = field(default_factory=Conditions)
    seed: int = 0


class NoLuckError(Exception):
    """A try of a cell has failed."""


class BeatenHeartbeat(Heartbeat):
    """Has no thread, which would live in real time: whoever trains lets it beat."""

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


class ObservedStore(Store):
    """The store as one simulated process has it; notes what each of its claims costs."""

    heartbeats = BeatenHeartbeat

    def __init__(self, disk: SharedFolder, leases: Leases, simulation: Simulation) -> None:
        super().__init__(FOLDER, retries=RETRIES, code=Code("simulated"), disk=disk, leases=leases)
        self._folder, self._simulation = disk, simulation

    def acquire(self, cell_id: str) -> Lease | None:
        lease = super().acquire(cell_id)
        if lease is not None:
            self._simulation.claims.append(self._folder.since_rest())
            self._simulation.counts["taken over"] += lease.before is not None
        return lease

    def release(self, cell_id: str, lease: Lease) -> None:
        super().release(cell_id, lease)
        self._folder.rest()


class Simulation:
    """One simulation of a table."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario, self.time = scenario, SimulatedTime()
        self.chance = random.Random(scenario.seed)
        self.server = Server(self.time, scenario.conditions, self.chance)
        self.server.root.update(store={})
        self.ids = [f"{number:016x}" for number in range(scenario.cells)]
        self.seconds = {cell: self.chance.expovariate(1 / scenario.cell_seconds) for cell in self.ids}
        ill = {
            "once": scenario.fails_once,
            "always": scenario.fails_always,
            "kills": scenario.kills_always,
            "": 1.0,
        }
        self.illness = {
            cell: next(i for i, share in ill.items() if self.chance.random() < share) for cell in self.ids
        }
        self.counts: Counter[str] = Counter()
        self.trained = 0.0
        # Seconds and operations from a cell's end or a pause to a claim.
        self.claims: list[tuple[float, int]] = []
        self.cards: Counter[str] = Counter()
        self.open = scenario.workers  # places of workers that are not done
        hosts = range(-(-scenario.workers // scenario.workers_a_host))
        self.hosts = [Host(f"host{n}", self.chance.uniform(0, 1e6)) for n in hosts]
        self.alive: dict[tuple[str, int], Process] = {}  # by machine and process
        for place in range(scenario.workers):
            self._start(self.hosts[place // scenario.workers_a_host], self.chance.uniform(0, 10))

    def _start(self, host: Host, after: float) -> None:
        lifetime = self.chance.expovariate(1 / self.scenario.worker_lifetime)
        self.time.start(lambda process: self._live(process, host), after, lifetime)

    def _live(self, process: Process, host: Host) -> None:
        """A worker's process; when it ends before its work does, another takes its place."""
        machine = f"{host.name}-{host.boot}"
        self.alive[machine, process.pid] = process
        done = False
        try:
            self._work(process, host, machine)
            done = True
        finally:
            self.open -= done
            if not done:
                self.counts["deaths"] += 1
                self._start(host, RESTART_SECONDS)

    def _work(self, process: Process, host: Host, machine: str) -> None:
        """A worker's real life, but for the training."""

        def dead(holder: Holder) -> bool:
            if holder.machine != machine:
                return False
            return self.alive[machine, holder.pid].dies_at <= self.time.now

        def run(cell: str, heartbeat: Heartbeat) -> None:
            try:
                self._train(store, disk, cell, heartbeat)
            except LeaseLostError:
                self.counts["found out that the lease is lost"] += 1
                raise
            except Exception as error:
                if not isinstance(error, NoLuckError):
                    self.time.errors.append(error)  # of the simulation, not of what it simulates
                raise

        disk = SharedFolder(self.server, host, process)
        store = ObservedStore(
            disk, Leases(disk, LEASE_SECONDS, (host.name, process.pid, machine), dead), self
        )
        store.enter()
        candidates = Candidates(self.ids, store, random.Random(self.chance.random()))
        disk.rest()
        settle(candidates, store, run)

    def _train(self, store: Store, disk: SharedFolder, cell: str, heartbeat: Heartbeat) -> None:
        """Beats, checkpoints, and a card at the end, as a trained cell makes them; training alone is not real."""
        checkpoint = store.work(cell) / "checkpoint.pt"
        try:
            done = float(disk.read(checkpoint))
        except FileNotFoundError:
            done = 0.0
        saved, total, illness = done, self.seconds[cell], self.illness[cell]
        while done < total:
            step = min(BEAT_SECONDS, total - done)
            disk.wait(step)
            self.trained += step
            done += step
            if illness == "kills" and done > total / 2:
                self.time.kill(disk.process)
            if illness == "always" or (illness == "once" and not store.failures.of(cell)):
                raise NoLuckError
            heartbeat.fraction = done / total
            with suppress(OSError):  # as the heartbeat's thread does
                heartbeat.beat()
            if done - saved >= CHECKPOINT_SECONDS or done >= total:
                heartbeat.check()
                with suppress(OSError):  # as the trainer does
                    disk.write(checkpoint, str(done))
                    self._note_late_write(heartbeat.lease)
                saved = done
                self.counts["trained to the end"] += done >= total
        store.write(card(cell), heartbeat.check)
        self.cards[cell] += 1

    def _note_late_write(self, lease: Lease) -> None:
        """A process that is paused between its check and its write: then the checkpoint goes back a little."""
        held = any(lease.holder.nonce in name for name in self.server.find(lease.place))
        self.counts["checkpoints written late"] += not held

    def __call__(self) -> dict[str, Any]:
        """Run it; what came of it."""
        self._restart_hosts()
        self.time.run()
        return self._outcome()

    def _restart_hosts(self) -> None:
        """A process of its own for each host, that lets it die from time to time with all its workers."""

        def watch(host: Host) -> None:
            def live(process: Process) -> None:
                due = self.chance.expovariate(1 / self.scenario.host_lifetime)
                while self.open:
                    self.time.sleep(process, min(WATCH_SECONDS, due))
                    due -= WATCH_SECONDS
                    if due > 0:
                        continue
                    due = self.chance.expovariate(1 / self.scenario.host_lifetime)
                    for (machine, _), worker in self.alive.items():
                        if machine == f"{host.name}-{host.boot}" and worker.dies_at > self.time.now:
                            self.time.kill(worker)
                    host.boot += 1
                    host.seen.clear()
                    self.counts["hosts restarted"] += 1

            self.time.start(live, 0.0, float("inf"))

        for host in self.hosts:
            watch(host)

    def _outcome(self) -> dict[str, Any]:
        cards = self.server.find(FOLDER / "cards")
        finished = {name.removesuffix(".json") for name in cards if name[0] != "."}
        given_up = {
            cell
            for cell in self.server.find(FOLDER / "work")
            if cell not in finished
            and json.loads(self.server.find(FOLDER / "work" / cell / "failure.json").text)["given_up"]
        }
        ill = {cell for cell in self.ids if self.illness[cell] in ("always", "kills")}
        seconds = sorted(seconds for seconds, _ in self.claims)
        operations = [count for _, count in self.claims]
        cells, total = self.scenario.cells, self.server.operations.total()
        return {
            "cells": cells,
            "workers": self.scenario.workers,
            "hosts": len(self.hosts),
            "hours": self.time.now / 3600,
            "cards": len(finished),
            "lost": len(set(self.ids) - finished - given_up),
            "finished_twice": sum(1 for count in self.cards.values() if count > 1),
            "given_up": len(given_up),
            "given_up_well": len(given_up - ill),
            **{name.replace(" ", "_"): self.counts[name] for name in COUNTED},
            "trained_over_needed": self.trained / sum(s for c, s in self.seconds.items() if c not in ill),
            "claims": len(self.claims),
            "operations_per_cell": total / cells,
            "operations_by_kind": {
                kind: count / cells for kind, count in sorted(self.server.operations.items())
            },
            "operations_per_claim": {"mean": sum(operations) / len(operations), "median": median(operations)},
            "claim_seconds": {
                "median": median(seconds),
                "p99": quantiles(seconds, n=100)[98],
                "most": seconds[-1],
            },
        }


COUNTED = (
    "deaths",
    "hosts restarted",
    "taken over",
    "found out that the lease is lost",
    "trained to the end",
    "checkpoints written late",
)


def card(cell: str) -> dict[str, Any]:
    """A small card that is valid. Nothing was measured."""
    content: dict[str, Any] = dict.fromkeys(REQUIRED)
    clean = {"n": 1, **dict.fromkeys(MEASURED, 0.0)}
    metrics = {"plain": {"clean": clean, "corrupted": {}}}
    known = {"schema": SCHEMA, "id": cell, "status": "finished", "metrics": metrics, "curve": []}
    return {**content, **known, "cost": dict.fromkeys(COSTS, 0), "cell": {}, "provenance": {}}
