"""`weightaug calibrate`, what it keeps, and what plans make of it."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import CommandLine
from planned_cards import card

from benchmarks.cell import Cell
from benchmarks.config import load
from benchmarks.launch.estimate import CALIBRATED, FLOPS, MEASURED, PEAK, SCALED, UNKNOWN, Throughput, total
from benchmarks.launch.forecast import Forecast
from benchmarks.launch.outlook import need, too_large
from benchmarks.launch.place import Place, known_place, place_of
from benchmarks.launch.request import Request
from benchmarks.planning import calibration
from benchmarks.planning.calibrate import Asked, Calibrating, asked_of
from benchmarks.planning.calibration import Calibration, Figures
from benchmarks.planning.kinds import Kind, work_of
from benchmarks.planning.need import need_of
from benchmarks.planning.packing import Level, Packing
from benchmarks.planning.worker import Measurer
from benchmarks.results.provenance import hardware
from benchmarks.runtime import Runtime, cores
from benchmarks.training.trainer import Trainer

PACKED = Packing((Level(1, 1.0, 5.0), Level(2, 1.25, 6.25)), "made up")


def figures(cell: Cell, step: float = 0.5, **changes: Any) -> Figures:
    """Made-up figures of a cell's kind. Nothing was measured."""
    kind = Kind.of(cell, cell.dataset.build())
    need = need_of(kind)
    made = Figures(
        label=kind.label,
        method=kind.method_key,
        batch=cell.recipe.batch_size,
        step_seconds=step,
        evaluated_per_second=1000.0,
        start_seconds=2.0,
        memory_bytes=3e9,
        computed=need.memory,
        engine="eager",
        flops=need.step_flops,
        evaluation_flops=need.image_flops,
    )
    return replace(made, **changes)


def made_up(*cells: Cell, packed: bool = True) -> Calibration:
    kinds = {Kind.of(cell, cell.dataset.build()).key: figures(cell) for cell in cells}
    packings = dict.fromkeys(kinds, PACKED) if packed else {}
    return Calibration(calibration.here("cpu"), "2.0", "2026-01-01T00:00:00+00:00", 5.0, 1e9, kinds, packings)


def smoke(*overrides: str) -> Cell:
    return load(["dataset=digits", "model=resnet_tiny", "recipe=resnet_smoke", *overrides])[0]


def forecast(runtime: Runtime, *cards: dict) -> Forecast:  # type: ignore[type-arg]
    place = place_of([smoke("method=damp")], runtime, 1)
    return Forecast(runtime, Throughput(cards, "cpu", hardware("cpu")), place)


def test_the_command(weightaug: CommandLine) -> None:
    """Measures for real, in processes of its own; twice, and the second time adds to the first."""
    args = ("device=cpu", "threads=1", "--seconds", "5", "--only", "method=sgd,damp")
    done = weightaug("calibrate", "damp/figure5", "--scale", "smoke", *args)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"^ (sgd|damp) resnet_tiny 8 px, batch 64 .* measured, eager, batch 64", done.stdout, re.M
    )
    path = calibration.path_of(Path("runs"), "cpu")
    assert f"kept: {path}" in done.stdout
    found = calibration.load(path)
    assert found is not None
    assert 1 <= len(found.kinds) <= 2
    for one in found.kinds.values():
        assert one.step_seconds > 0
        assert one.evaluated_per_second > 0
        assert one.flops > one.evaluation_flops > 0
    first = next(iter(found.kinds.values()))
    assert first.memory_bytes is None or first.memory_bytes > found.worker_bytes / 2
    later = made_up(smoke("method=was"))
    calibration.keep(Path("runs"), "cpu", later)
    both = calibration.load(path)
    assert both is not None
    assert both.kinds.keys() == found.kinds.keys() | later.kinds.keys()


class Idle:
    """In the place of a process that measures."""

    def __init__(self, *_: object) -> None: ...
    def ready(self) -> dict[str, float]:
        return {"seconds": 1.0, "bytes": 1e9}

    def close(self) -> None: ...


def test_an_interrupted_calibration_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second kind is interrupted; the next calibration begins with it."""
    monkeypatch.setattr("benchmarks.planning.calibrate.MeasuringProcess", Idle)
    cells = [smoke(f"method={name}") for name in ("sgd", "damp", "sam")]
    asked = asked_of((cell, cell.dataset.build()) for cell in cells)
    order: list[str] = []

    class Interrupted(Calibrating):
        def _kind(self, asked: Asked, of: int, others: bool) -> Figures | None:
            order.append(asked.kind.key)
            if others:
                raise KeyboardInterrupt
            return figures(asked.kind.cell)

    for _ in cells[1:]:
        before = calibration.read(tmp_path, "cpu")
        calibrating = Interrupted(
            "cpu", "eager", 5.0, order.append, keep=lambda found: calibration.keep(tmp_path, "cpu", found)
        )
        with pytest.raises(KeyboardInterrupt):
            calibrating.calibrate(asked, before.measured if before else ())
    found = calibration.read(tmp_path, "cpu")
    assert found is not None
    keys = [one.kind.key for one in asked]
    assert order == [keys[0], keys[1], keys[1], keys[2]]
    assert found.measured == {*keys[:2]}


def test_what_is_derived_takes_no_measurements_place() -> None:
    cell = smoke("method=damp")
    key = Kind.of(cell, cell.dataset.build()).key
    measured, derived = made_up(cell), replace(made_up(cell), kinds={key: figures(cell, derived_from="sgd")})
    assert measured.with_later(derived).kinds == measured.kinds
    assert derived.with_later(measured).kinds == measured.kinds


def test_what_is_kept_is_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = made_up(smoke("method=damp"))
    path = calibration.keep(tmp_path, "cpu", made)
    assert calibration.read(tmp_path, "cpu") == made
    assert calibration.read(tmp_path / "elsewhere", "cpu") is None
    raw = json.loads(path.read_text())
    for damage in (
        '{"schema": 1',
        "[]",
        json.dumps({**raw, "schema": 99}),
        json.dumps({**raw, "kinds": {"x": {}}}),
    ):
        path.write_text(damage)
        assert calibration.read(tmp_path, "cpu") is None
        assert "no calibration that can be read" in capsys.readouterr().err


def test_workers_follow_the_calibration(tmp_path: Path) -> None:
    cell, runtime = smoke("method=damp"), Runtime(device="cpu", store=str(tmp_path))
    before = place_of([cell], runtime, 9)
    assert before.workers == cores()
    assert "one a core" in before.why
    calibration.keep(tmp_path, "cpu", made_up(cell))
    chosen = place_of([cell], runtime, 9)
    assert (chosen.workers, chosen.at_once, chosen.threads) == (2, 2, max(1, cores() // 2))
    assert "1.25 times the cells an hour" in chosen.why
    asked = place_of([cell], replace(runtime, workers=1), 9)
    assert (asked.workers, asked.why) == (1, "as asked for")
    assert place_of([smoke("method=sam")], runtime, 9).packing is None  # of no such cell


def test_times_by_calibration(tmp_path: Path) -> None:
    cell, runtime = smoke("method=damp"), Runtime(device="cpu", store=str(tmp_path), workers=2)
    assert forecast(runtime).seconds(cell) == (0.0, UNKNOWN)
    calibration.keep(tmp_path, "cpu", made_up(cell))
    known = forecast(runtime)
    work = work_of(cell, cell.dataset.build())
    assert work is not None
    alone = 2.0 + work.steps * 0.5 + work.evaluated / 1000
    assert known.seconds(cell) == (pytest.approx(alone * 2 / 1.25), CALIBRATED)
    larger = smoke("method=damp", "recipe.batch_size=128")  # twice the FLOPs a step, half as many steps
    seconds, basis = known.seconds(larger)
    steps = work_of(larger, larger.dataset.build())
    assert steps is not None
    assert basis == SCALED
    assert seconds == pytest.approx((2.0 + steps.steps * 1.0 + work.evaluated / 1000) * 2 / 1.25)
    # Cards of the same kind know better, and those of the same method better than other kinds' calibration.
    assert forecast(runtime, card(cell, 3.0)).seconds(cell)[1] == MEASURED
    sam = smoke("method=sam")
    other = smoke("method=sam", "recipe.batch_size=128")
    assert forecast(runtime, card(other, 3.0)).seconds(sam)[1] == FLOPS


def test_the_plan_with_a_calibration(weightaug: CommandLine) -> None:
    asked = Request.parse("damp/table2", "smoke", "1", [], [], "reports", ("method=damp", "panel=resnet"))
    calibration.keep(Path("runs"), "cpu", made_up(*(asked.cells[cell_id] for cell_id in asked.asked)))
    (Path("runs") / "cards").mkdir()
    table = ("reproduce", "damp/table2", "--scale", "smoke", "--seeds", "1", "--dry-run", "device=cpu")
    only = ("--only", "method=damp", "--only", "panel=resnet")
    done = weightaug(*table, *only)
    assert done.returncode == 0, done.stderr
    assert "workers: 2 (by the calibration of this machine: 1.25 times the cells an hour" in done.stdout
    assert re.search(
        r"^ tiny ResNet +DAMP 1x +0\.\d+ +3 GB +calibration +calibration", done.stdout, re.MULTILINE
    )
    assert re.search(r"^cheapest packing: \d+ cores, 2 cell\(s\) at once", done.stdout, re.MULTILINE)
    assert re.search(r"^disk: .* of weights, .* of checkpoints meanwhile$", done.stdout, re.MULTILINE)
    assert "calibration: 2026-01-01T00:00:00+00:00" in done.stdout
    assert "from the calibration of this machine" in done.stdout


def test_the_plan_for_a_device_that_is_not_here(weightaug: CommandLine) -> None:
    arguments = ("reproduce", "damp/table2", "--seeds", "1", "--only", "method=sgd,damp", "--dry-run")
    done = weightaug(*arguments, "--on", "v100_16gb")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"^ ViT-S/16 +DAMP 1x +>= [\d.]+ +[\d.]+ GB +peak rate +computed", done.stdout, re.MULTILINE
    )
    assert re.search(
        r"^does not fit: ViT-S/16, DAMP 1x: .* devices=\d+, or accumulate=\d+$", done.stdout, re.MULTILINE
    )
    assert "peak rate: a bound, no measurement" in done.stdout
    assert "time left: at least" in done.stdout
    assert list(Path().iterdir()) == []
    for on, said in (
        (["8xh200"], "device: 8 x NVIDIA H200, not looked for here; workers: 8 (one a GPU)"),
        (["8xh200", "devices=4"], "workers: 2 (one for every 4 GPUs)"),
        (
            ["h200", "devices=8"],
            "device: 8 x NVIDIA H200, not looked for here; workers: 1 (one for every 8 GPUs)",
        ),
        (["4xh200", "devices=8"], "devices=8 takes 8 GPUs, and --on 4xh200 has 4; use fewer, or --on 8xh200"),
        (["8xh200", "devices=4", "workers=3"], "takes 12 GPUs, and --on 8xh200 has 8; use --on 12xh200"),
        (["0xh200"], "unknown device '0xh200'; did you mean 'h200'?"),
    ):
        done = weightaug(*arguments, "--on", *on)
        assert said in done.stdout + done.stderr
    wrong = weightaug(*arguments, "--on", "v1000")
    assert wrong.returncode == 2
    assert "unknown device 'v1000'; did you mean" in wrong.stderr
    assert weightaug(*arguments[:-1], "--on", "h100").returncode == 2


def test_the_time_left_is_that_until_the_last_cell_is_done() -> None:
    left = total(((seconds, MEASURED), share) for seconds, share in ((40.0, 0.25), (20.0, 1.0), (30.0, 1.0)))
    assert left.seconds == 60
    assert [left.until_done(workers) for workers in (1, 2, 3, 9)] == [60, 40, 30, 30]


def test_a_bound_is_the_arithmetic_at_the_peak_rate() -> None:
    cell = load(["dataset=imagenet_damp", "model=resnet50", "recipe=resnet_imagenet", "evaluation=clean"])[0]
    place = known_place(Runtime(), "a100_80gb")
    seconds, basis = Forecast(Runtime(), Throughput([], "cuda", {}), place).seconds(cell)
    assert basis == PEAK
    flops = 8.18e9 * (3 * 1_280_000 * cell.recipe.total_epochs + 50_000)  # 4.09 GMACs an image
    assert seconds == pytest.approx(flops / 19.5e12, rel=0.02)
    tf32 = replace(cell, recipe=replace(cell.recipe, precision="tf32"))
    assert Forecast(Runtime(), Throughput([], "cuda", {}), place).seconds(tf32)[0] == pytest.approx(
        seconds / 8
    )
    none = known_place(Runtime(), "v100_16gb")
    assert Forecast(Runtime(), Throughput([], "cuda", {}), none).seconds(tf32) == (0.0, UNKNOWN)


def test_a_cell_takes_about_as_long_as_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the processor time of one thread, measured before and after, so that the machine's load says little."""
    monkeypatch.setattr(Measurer, "_now", lambda self: time.process_time())
    monkeypatch.setattr(Measurer, "_forget", lambda self: None)  # would give memory of the other tests back
    threads = torch.get_num_threads()
    for method in ("sgd", "damp"):
        cell = smoke(f"method={method}", "recipe.epochs=1")
        source = cell.dataset.build()
        work = work_of(cell, source)
        assert work is not None
        trainer = Trainer(cell, source, source.load(Path()), "cpu")
        side = Measurer("cpu", "eager")
        side.load(Kind.of(cell, source), cell.recipe.batch_size, work.steps, 1)
        before = side.step_seconds(0.3)
        begun = time.process_time()
        trainer.run()
        taken = time.process_time() - begun
        told = work.steps * (before + side.step_seconds(0.3)) / 2
        assert trainer.progress.step == work.steps
        assert 0.5 < told / taken < 2
    torch.set_num_threads(threads)


def test_several_devices_for_a_cell() -> None:
    cell = load(["dataset=imagenet_damp", "model=resnet50", "recipe=resnet_imagenet", "evaluation=clean"])[0]

    def on(**settings: int) -> tuple[Forecast, Place]:
        runtime = Runtime(**settings)  # type: ignore[arg-type]
        place = known_place(runtime, "a100_80gb")
        return Forecast(runtime, Throughput([], "cuda", {}), place), place

    (one, alone), (two, pair), (slow, _) = on(), on(devices=2), on(accumulate=2)
    assert (alone.gpus, pair.gpus) == (1, 2)
    work = work_of(cell, cell.dataset.build(), 2)
    assert work is not None
    assert work.evaluated == 98 * 256  # of 196 batches
    step, image = (getattr(need_of(two.kind(cell)[0]), f"{name}_flops") for name in ("step", "image"))
    flops = work.steps * step / 2 + work.evaluated * image
    assert two.seconds(cell)[0] == pytest.approx(flops / 19.5e12)
    made = figures(cell, 2.0)
    assert made.cell_seconds(work, 2) == pytest.approx(made.start_seconds + work.steps + 25.088)
    assert slow.seconds(cell) == one.seconds(cell)
    memory = one.memory(cell)
    for forecast in (two, slow):
        assert need(forecast, cell) == (memory.in_parts(2), "computed")
    line = next(too_large([("row", cell)], one, alone))
    assert re.search(
        r"^does not fit: row: .* GB a cell, .* has 80 GB; \d+ parts of \d+ images would: devices=\d+$", line
    )  # and not in parts one after another, between which BatchNorm would be lost
