"""`weightaug wandb-sync`: W&B filled again from cards, once and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from offline_runs import read_run
from planned_cards import card, put

from benchmarks.launch.request import Request
from benchmarks.results.wandb_log import holds_card
from benchmarks.results.wandb_mirror import Mirror, mirror_card

TABLE = ("damp/table2", "--scale", "smoke", "--seeds", "1")


def runs() -> dict[str, Path]:
    return {path.name.rpartition("-")[2]: path for path in Path("runs/wandb").glob("offline-run-*")}


def times() -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path("runs/wandb").glob("offline-run-*/*.wandb")}


def test_a_table_its_claims_and_plots_and_nothing_twice(weightaug: CommandLine) -> None:
    cells = Request.parse("damp/table2", "smoke", 1, [], [], "reports").cells.values()
    chosen = [cell for cell in cells if cell.method.name in ("sgd", "sam") and cell.model.name == "vit_tiny"]
    for cell in chosen:
        put(card(cell))
    assert weightaug("wandb-sync", *TABLE).returncode == 0
    logged = {name: read_run(path) for name, path in runs().items()}
    for cell in chosen:
        run = logged.pop(cell.id)
        assert (run["group"], run["job_type"], run["finished"]) == ("damp/table2", "cell", True)
        assert run["config"]["recipe"] == card(cell)["cell"]["recipe"]
        assert run["summary"]["plain/clean/error"] == 1.0
        assert [row["train/loss"] for row in run["history"] if "train/loss" in row] == [1.0] * 6
    (report,) = logged.values()
    assert report["id"].startswith("report-damp-table2-smoke-")
    assert report["job_type"] == "report"
    for name, kind in (("report", "table-file"), ("claims", "table-file"), ("curves", "image-file")):
        assert report["summary"][f"{name}._type"] == kind

    before = times()
    again = weightaug("wandb-sync", *TABLE)
    assert (again.returncode, times()) == (0, before)
    assert "0 of 2 cells sent, 2 were there" in again.stderr
    assert weightaug("wandb-sync").returncode == 0  # the whole store: the same cells
    assert times() == before
    assert weightaug("wandb-sync", "--force").returncode == 0
    assert len(times()) == len(before)
    assert len(before.keys() & times().keys()) == 1  # the report's
    log = next(path for path in times() if path.parent.name.endswith(chosen[0].id))
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])  # as a killed run leaves it
    assert not holds_card(log.parent, card(chosen[0]))
    assert "1 of 2 cells sent, 1 were there" in weightaug("wandb-sync").stderr
    assert any(holds_card(path, card(chosen[0])) for path in runs().values())


def test_runs_go_to_their_folder_wherever_wandb_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = card(next(iter(Request.parse("damp/table2", "smoke", 1, [], [], "reports").cells.values())))
    for name in ("here", "there"):  # W&B's process begins with the first, at the latest
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert mirror_card(Mirror("offline", Path("runs"), "damp/table2"), made, "a name")
        (run,) = runs().values()
        assert read_run(run)["finished"]


class Online:
    """What the mirror uses of a run that W&B has from before, with ``epochs`` of its history."""

    def __init__(self, epochs: int, complete: bool) -> None:
        self.starting_step, self.resumed = epochs + 1 if epochs else 0, epochs > 0
        self.summary: dict[str, Any] = {"errors": "there"} if complete else {}
        self.logged: list[tuple[list[str], int | None]] = []

    def log(self, content: dict[str, Any], step: int | None = None) -> None:
        self.logged.append((sorted(content), step))

    def finish(self) -> None:
        self.finished = True


@pytest.mark.parametrize(
    ("epochs", "complete", "steps"),
    [(0, False, [1, 2, 3, 4, 5, 6, None]), (2, False, [3, 4, 5, 6, None]), (6, True, [])],
)
def test_an_online_run_goes_on_where_it_was(
    epochs: int, complete: bool, steps: list[int | None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, asked = Online(epochs, complete), {}

    def init(**options: Any) -> Online:
        asked.update(options)
        return run

    monkeypatch.setattr("wandb.init", init)
    monkeypatch.setattr("wandb.login", lambda **_: True)
    made = card(next(iter(Request.parse("damp/table2", "smoke", 1, [], [], "reports").cells.values())))
    assert mirror_card(Mirror("online", tmp_path, "damp/table2"), made, "a name")
    assert (asked["id"], asked["resume"], asked["group"]) == (made["id"], "allow", "damp/table2")
    assert [step for _, step in run.logged] == steps
    assert run.summary["plain/clean/error"] == 1.0  # written again in any case
    assert run.finished


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "there is no card store in runs"),
        (("wandb=disabled",), "wandb=disabled sends nothing"),
        (("damp/tabel2",), "did you mean 'damp/table2'"),
        (("store=empty",), "no card in empty/cards; train cells with `weightaug reproduce TABLE`"),
        ((*TABLE, "store=empty"), "no card of damp/table2 at scale smoke in empty/cards"),
    ],
)
def test_bad_input(weightaug: CommandLine, arguments: tuple[str, ...], said: str) -> None:
    Path("empty/cards").mkdir(parents=True)
    done = weightaug("wandb-sync", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
