"""The store's own code on a simulated cluster: deaths at any moment, late views, lost answers, pauses."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from benchmarks.results.lease import Lease, LeaseLostError
from benchmarks.simulation.shared_folder import Conditions, SharedFolder
from benchmarks.simulation.table import Scenario, Simulation

CALM = Conditions(lost_answer=0.0, pause=0.0)


@pytest.mark.parametrize("seed", [1, 2])
def test_no_cell_is_lost_and_none_finished_twice(seed: int) -> None:
    bad = Conditions(lost_answer=0.02, pause=0.003)
    scenario = Scenario(
        cells=150,
        workers=15,
        workers_a_host=3,
        worker_lifetime=400.0,
        host_lifetime=5000.0,
        conditions=bad,
        seed=seed,
    )
    came = Simulation(scenario)()
    assert (came["lost"], came["finished_twice"]) == (0, 0)
    assert came["cards"] + came["given_up"] == 150
    assert came["deaths"] > 10
    assert came["taken_over"] > 5
    assert came["trained_to_the_end"] <= came["cards"] + came["found_out_that_the_lease_is_lost"]


def test_the_simulation_repeats_itself() -> None:
    scenario = Scenario(cells=30, workers=5, worker_lifetime=200.0)
    assert Simulation(scenario)() == Simulation(scenario)()


def test_a_claim_costs_the_same_in_a_large_store() -> None:
    def claims(cells: int) -> dict[str, Any]:
        lasting = {"worker_lifetime": 1e9, "host_lifetime": 1e9, "cell_seconds": 20.0}
        return Simulation(Scenario(cells=cells, workers=8, conditions=CALM, **lasting))()  # type: ignore[arg-type]

    small, large = claims(60), claims(480)
    assert large["operations_per_claim"]["mean"] < 1.3 * small["operations_per_claim"]["mean"]
    assert large["operations_per_cell"] < 1.3 * small["operations_per_cell"]
    assert large["trained_to_the_end"] == large["cards"]


def test_the_simulation_notices_a_store_that_does_not_keep_its_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the proof of the lease and with links that replace what is there, cells are finished twice."""
    renew = Lease.renew

    def careless(self: Lease) -> None:
        with suppress(LeaseLostError):
            renew(self)

    def overwrite(self: SharedFolder, path: Path, new: Path) -> None:
        self._take("link")
        self.server.find(new.parent)[new.name] = self.server.find(path)

    monkeypatch.setattr(Lease, "renew", careless)
    monkeypatch.setattr(SharedFolder, "link", overwrite)
    came = Simulation(Scenario(cells=60, workers=12, conditions=Conditions(pause=0.003)))()
    assert came["finished_twice"] > 0
