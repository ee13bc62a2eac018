"""`reproduce --dry-run`, `--only` and `--seeds`: what is asked for, how far it is, how long it will take."""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from planned_cards import card, put
from torch import nn

from benchmarks import config
from benchmarks.errors import UserError
from benchmarks.launch.estimate import FLOPS, MEASURED, UNKNOWN, Throughput
from benchmarks.launch.request import Request
from benchmarks.launch.selection import parse_seeds, shown_seeds
from benchmarks.launch.shares import shareable
from benchmarks.registry import entries
from benchmarks.results.files import write_json
from benchmarks.results.provenance import hardware
from benchmarks.results.store import Store
from weightaug import DAMP

TABLE = ("reproduce", "damp/table2", "--scale", "smoke", "device=cpu", "workers=2")


def request(*only: str, seeds: str | None = None) -> Request:
    return Request.parse("damp/table2", "smoke", seeds, [], [], "reports", only)


def test_a_plan_without_a_store_makes_none(weightaug: CommandLine) -> None:
    done = weightaug(*TABLE, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("damp/table2 at scale smoke: 48 cells: 48 waiting\n")
    assert re.search(r"^ tiny ViT +WAS \(AOM\) 1x / WAS \(DOM\) 1x +3 ", done.stdout, re.MULTILINE)
    assert "time left: no measurement for 48 cell(s): run one of each kind on this hardware" in done.stdout
    assert list(Path().iterdir()) == []


def test_states_of_cells(weightaug: CommandLine) -> None:
    cells = list(request("method=sgd", "panel=vit", seeds="5").cells.values())
    ids = [cell.id for cell in cells if cell.method.name == "sgd" and cell.model.name == "vit_tiny"]
    work = Path("runs/work")
    put(card(next(cell for cell in cells if cell.id == ids[0])))
    put({**card(next(cell for cell in cells if cell.id == ids[1])), "status": "diverged", "metrics": None})
    beat = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time(), "fraction": 0.25}
    write_json(work / ids[2] / "heartbeat.json", beat)
    assert Store(Path("runs")).acquire(ids[2]) is not None
    write_json(work / ids[3] / "failure.json", {"error": "no luck"})
    dead = {**beat, "pid": 2**22 + 1}  # what a killed process leaves
    write_json(work / ids[4] / "heartbeat.json", dead)
    (Path("runs/cards") / f"{ids[4]}.json").write_text('{"schema": 1')
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}
    only = ("--only", "method=sgd", "--only", "panel=vit", "--seeds", "5", "--dry-run")
    done = weightaug(*TABLE, *only, "--cells")
    assert ": 5 cells: 1 finished, 1 diverged, 1 running, 1 failed, 1 waiting; 75 more cells" in done.stdout
    assert f"process {os.getpid()} on {socket.gethostname()} since" in done.stdout
    assert "25% done" in done.stdout
    assert "no luck" in done.stdout
    assert "damaged card" in done.stdout
    assert [line.split()[:2] for line in done.stdout.splitlines() if line[:16] in ids] == [
        list(pair) for pair in zip(ids, ("finished", "diverged", "running", "failed", "waiting"), strict=True)
    ]
    # 6 epochs of 2 s and 1 s of evaluation: a quarter of one is done, two are to be done; two workers, of which one
    # has the first cell and then the last
    assert (
        f"time left: about {(0.75 + 1) * 13:.0f} s with 2 worker(s) (cells told: 3 from {MEASURED})"
        in done.stdout
    )
    assert before == {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}


def test_what_is_missing_is_named(weightaug: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.launch.requirements.photograph_folder", lambda: None)
    done = weightaug("reproduce", "damp/table2", "--dry-run", "device=cpu", "data=nothing")
    assert done.returncode == 0
    missing = [line for line in done.stdout.splitlines() if line.startswith("missing: ")]
    assert missing[0] == "missing: a CUDA device (none is used)"
    assert "imagenet/train" in missing[1] and "147,897,477,120 bytes" in done.stdout
    assert max(line.count(" bytes, ") for line in done.stdout.splitlines()) == 1
    assert [
        name for name in ("imagenet-c", "imagenet_a", "imagenet_hard") if not any(name in m for m in missing)
    ] == []
    assert not any("photographs" in line for line in missing)  # the published corrupted images are asked for
    done = weightaug("reproduce", "damp/figure4", "--dry-run", "device=cpu", "data=nothing")
    missing = [line for line in done.stdout.splitlines() if line.startswith("missing: ")]
    assert any("photographs" in line for line in missing)


def test_times_are_told_from_the_same_kind_else_from_flops_else_not_at_all() -> None:
    cells = {
        (c.method.name, c.model.name, c.recipe.total_epochs): c for c in request(seeds="1").cells.values()
    }
    sgd, double = cells["sgd", "vit_tiny", 6], cells["damp", "vit_tiny", 12]
    damp, other = cells["damp", "vit_tiny", 6], cells["damp", "resnet_tiny", 5]
    known = Throughput([card(damp, 3.0), card(damp, 5.0), card(sgd, 1.0)], "cpu", hardware("cpu"))
    assert known.seconds(double) == (12 * 4.0 + 1.0, MEASURED)
    assert known.seconds(other) == (0.0, UNKNOWN)  # nobody has counted the FLOPs of that model yet
    resnet = card(cells["sgd", "resnet_tiny", 5], 1.0)
    resnet["cost"]["flops"] *= 4
    seconds, basis = Throughput([card(damp, 3.0), resnet], "cpu", hardware("cpu")).seconds(other)
    assert basis == FLOPS
    batches = {"resnet_tiny": resnet["cell"]["recipe"]["batch_size"], "vit_tiny": damp.recipe.batch_size}
    assert seconds == pytest.approx(4 * 3.0 * 5 * batches["resnet_tiny"] / batches["vit_tiny"] + 1.0)
    elsewhere = card(damp, hardware={"processor": "another", "cores": 1})
    assert Throughput([elsewhere], "cpu", hardware("cpu")).seconds(damp) == (0.0, UNKNOWN)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("3", (0, 1, 2)),
        ("0,2,5", (0, 2, 5)),
        ("3..7", (3, 4, 5, 6, 7)),
        ("5,0..1", (0, 1, 5)),
        ("4..4", (4,)),
    ],
)
def test_seeds(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds
    assert parse_seeds(shown_seeds(seeds)) == seeds


@pytest.mark.parametrize("text", ["", "0", "-1", "7..3", "1;2", "two", "1,,2"])
def test_bad_seeds(text: str) -> None:
    with pytest.raises(UserError, match="--seeds"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("only", "count"),
    [
        ([], 48),
        (["method=damp"], 12),
        (["row=damp-1x,dropout-1x"], 12),
        (["row=was-dom"], 6),  # its cells fill the row was-aom too
        (["panel=resnet", "seed=0,2"], 16),
        (["model=vit_tiny", "dataset=digits", "method=sam", "method=asam"], 6),
    ],
)
def test_only(only: list[str], count: int) -> None:
    found = request(*only)
    assert len(found.asked) == count
    assert len(found.cells) == 48
    assert set(found.asked) <= found.cells.keys()


@pytest.mark.parametrize(
    ("only", "said"),
    [
        (["metod=damp"], "unknown key of --only 'metod'; did you mean 'method'"),
        (["method=dmap"], "did you mean 'damp'"),
        (["row=damp"], "did you mean 'damp-"),
        (["seed=7"], "unknown seed in --only seed=7: '7'"),
        (["method=damp,"], "unknown method in --only method=damp,: ''"),
        (
            ["method=sam", "row=damp-1x"],
            "no cell of the table fits all of --only method=sam --only row=damp-1x",
        ),
    ],
)
def test_bad_only(only: list[str], said: str) -> None:
    with pytest.raises(UserError) as error:
        request(*only)
    assert said in str(error.value)


def test_the_command_that_makes_the_report_again_is_true() -> None:
    part = request("method=damp", seeds="0,2")
    cards = {place: {"id": cell} if cell in part.asked else None for place, cell in part.positions.items()}
    assert part.again(cards).endswith("--scale smoke --seeds 0,2 --only method=damp")
    everything = {place: {"id": cell} for place, cell in part.positions.items()}
    assert part.again(everything).endswith("--scale smoke --seeds 0,2")  # others trained the rest
    assert request(seeds="3").again(dict.fromkeys(request(seeds="3").positions)).endswith("--seeds 3")


def test_a_report_shows_finished_cells_that_were_not_asked_for(weightaug: CommandLine) -> None:
    for cell in request("method=sgd", seeds="1").cells.values():
        if cell.method.name in ("sgd", "damp"):
            put(card(cell))
    done = weightaug("report", *TABLE[1:], "--seeds", "1", "--only", "method=sgd")
    assert done.returncode == 0, done.stderr
    text = Path("reports/smoke/damp-table2.md").read_text()
    assert "--only" not in text
    assert "NOT RUN" in text
    assert len(list(Path("reports/smoke/damp-table2/cards").iterdir())) == 2 + 4


def test_strangers_among_cards_are_named_and_the_rest_is_reported(weightaug: CommandLine) -> None:
    cells = [cell for cell in request(seeds="1").cells.values() if cell.method.name in ("sgd", "sam", "asam")]
    folder = Path("cards")
    for cell in cells:
        write_json(folder / f"{cell.id}.json", card(cell))
    (folder / "second.json").write_text((folder / f"{cells[0].id}.json").read_text())
    write_json(folder / f"{cells[1].id}.json", {**card(cells[1]), "schema": 99})
    (folder / f"{cells[2].id}.json").write_text("{")
    write_json(folder / f"{cells[3].id}.json", card(cells[0]))
    done = weightaug("report", *TABLE[1:], "--seeds", "1", "--cards", "cards")
    assert done.returncode == 0
    warned = [line for line in done.stderr.splitlines() if "warning" in line]
    assert len(warned) == 4
    for said in (
        "second.json: left out",
        "layout version 99",
        "Expecting property name",
        "is the card of cell",
    ):
        assert sum(said in line for line in warned) == 1
    assert len(list((folder / "damaged").iterdir())) == 3
    assert (folder / "second.json").is_file()


def test_a_method_may_look_at_the_weights_when_it_is_asked_how_it_can_be_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell, runtime = config.load(["method=damp", "model=vit_tiny"])
    expected, made = shareable(cell, runtime), DAMP.__init__
    looked: list[float] = []

    def look(self: DAMP, model: nn.Module, **options: Any) -> None:
        looked.extend(p.abs().max().item() for p in model.parameters())
        made(self, model, **options)

    monkeypatch.setattr(DAMP, "__init__", look)
    assert shareable(cell, runtime) == expected
    assert looked


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ("damp/table1", "devices=3"),
            "row dropout, sgd, was-aom, was-dom: recipe.batch_size=64 can't be divided by devices=3; row damp, sam, "
            "asam: devices=3 is no divisor of method.sub_batches=8: every part needs the same number of sub-batches; "
            "use devices=2, 4 or 8 for all of them",
        ),
        (
            ("damp/table1", "devices=16"),
            "row damp, sam, asam: devices=16 is more than method.sub_batches=8: every part needs the same number of "
            "sub-batches; use devices=2, 4 or 8 for all of them, or devices=16 with --only "
            "row=dropout,sgd,was-aom,was-dom",
        ),
        (
            ("damp/table2", "accumulate=2", "--only", "method=damp"),
            "panel resnet: accumulate=2: BatchNorm takes its statistics over the whole batch, which parts that run one "
            "after another can't know; leave out accumulate, and use devices=2, 4 or 8 for all of them, or "
            "accumulate=2 with --only panel=vit",
        ),
    ],
)
def test_a_plan_refuses_what_a_run_refuses(
    settings: tuple[str, ...], said: str, weightaug: CommandLine
) -> None:
    name, *others = settings
    for dry_run in ([], ["--dry-run"], ["--dry-run", "--on", "h200"]):
        done = weightaug("reproduce", name, "--scale", "smoke", "device=cpu", *others, *dry_run)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"weightaug: error: {said}\n")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("name", entries("table"))
def test_every_table_can_be_planned_soon(name: str, weightaug: CommandLine) -> None:
    from benchmarks.tables.reading import load_table

    for scale in load_table(entries("table")[name].path, name).scales:
        command = ("reproduce", name, "--scale", scale, "--dry-run")
        assert weightaug(*command).returncode == 0  # imports what is needed
        config._composed.clear()
        begun = time.process_time()
        done = weightaug(*command)
        assert time.process_time() - begun < 2  # twice the bar, which `make bench` shows
        assert done.returncode == 0, done.stderr
        assert f"{name} at scale {scale}: " in done.stdout


def test_no_model_is_built_for_a_plan(weightaug: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def build(*_: object, **__: object) -> None:
        raise AssertionError("a plan builds no model")

    monkeypatch.setattr(torch.nn.Module, "__init__", build)
    assert weightaug("reproduce", "damp/table2", "--dry-run", "device=cpu").returncode == 0


def test_other_scales_of_the_table_tell_the_time(weightaug: CommandLine) -> None:
    smoke = Request.parse("was/flops", "smoke", None, [], [], "reports").cells.values()
    for cell in smoke:  # the same networks, made-up images and batches as at full scale, but for the classes
        put(card(cell, 2.0))
    done = weightaug("reproduce", "was/flops", "--scale", "reduced", "--dry-run", "device=cpu")
    assert done.returncode == 0
    assert "6 waiting" in done.stdout and "?" not in done.stdout.split("store:")[0]
    assert "no measurement" not in done.stdout
