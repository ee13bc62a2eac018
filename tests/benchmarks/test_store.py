"""The card store: claims, damaged files, cards that appear whole."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.config import load
from benchmarks.errors import UserError
from benchmarks.results.card import COSTS, MEASURED, REQUIRED, SCHEMA, DamagedCardError, check_card
from benchmarks.results.disk import Disk
from benchmarks.results.files import write_json
from benchmarks.results.lease import LeaseLostError, Leases
from benchmarks.results.store import Store


def card(cell_id: str) -> dict[str, Any]:
    content: dict[str, Any] = dict.fromkeys(REQUIRED)
    measured = dict.fromkeys(MEASURED, 1.0)
    corrupted = {"contrast": {key: [1.0] * 5 for key in MEASURED}}
    return {
        **content,
        "schema": SCHEMA,
        "id": cell_id,
        "status": "finished",
        "metrics": {"plain": {"clean": {"n": 10, **measured}, "corrupted": corrupted}},
        "curve": [{"epoch": 1, "step": 3, "lr": 0.1, "loss": 2.0}],
        "cost": dict.fromkeys(COSTS, 1.0),
        "cell": {},
        "provenance": {},
    }


def test_a_written_card_is_read_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.read("aa") is None
    store.write(card("aa"))
    assert store.has("aa")
    assert store.read("aa") == card("aa")


@pytest.mark.parametrize(
    "content",
    [
        '{"schema": 1, "id": "aa"',
        "[]",
        '{"schema": 1}',
        json.dumps({**card("aa"), "schema": 99}),
        json.dumps(card("bb")),
        json.dumps({**card("aa"), "metrics": None}),
        json.dumps({**card("aa"), "metrics": {"plain": {}}}),
        json.dumps(card("aa")).replace('"error": 1.0', '"error": "x"', 1),
        json.dumps(card("aa")).replace("[1.0, 1.0, 1.0, 1.0, 1.0]", "[1.0]", 1),
        json.dumps({**card("aa"), "cost": {}}),
        "\x00\x00",
        "",
    ],
)
def test_a_damaged_card_is_named_set_aside_and_kept(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    (store.cards / "aa.json").write_text(content)
    assert store.read("aa") is None
    assert not store.has("aa")
    kept = list((store.cards / "damaged").iterdir())
    assert [path.read_text() for path in kept] == [content]
    warning = capsys.readouterr().err
    assert "aa.json" in warning
    assert str(kept[0]) in warning
    assert warning.count("\n") == 1


def test_binary_garbage_is_a_damaged_card_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.cards / "aa.json").write_bytes(b"\xff\xfe\x00")
    assert store.read("aa") is None
    assert len(list((store.cards / "damaged").iterdir())) == 1


def test_an_invalid_card_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(DamagedCardError):
        Store(tmp_path).write({"id": "aa"})
    with pytest.raises(DamagedCardError, match="unknown status"):
        check_card({**card("aa"), "status": "fine"})
    assert not Store(tmp_path).has("aa")


def test_only_one_has_a_claim(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.claim("aa") as mine:
        assert mine is not None
        with Store(tmp_path).claim("aa") as theirs:
            assert theirs is None
        assert store.heartbeat("aa")["fraction"] == 0.0
    with store.claim("aa") as again:
        assert again is not None


def test_work_files_go_when_the_card_is_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.claim("aa"):
        (store.work("aa") / "checkpoint.pt").write_text("x")
    assert (store.work("aa") / "checkpoint.pt").exists()  # not finished: the next try continues
    with store.claim("aa"):
        store.write(card("aa"))
    assert not store.work("aa").exists()


def _hold(folder: Path, ready: Any) -> None:
    with Store(folder).claim("aa"):
        ready.set()
        time.sleep(60)


def test_a_killed_process_frees_its_claim(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(30)
    with Store(tmp_path).claim("aa") as claim:
        assert claim is None
    process.kill()
    process.join()
    with Store(tmp_path).claim("aa") as claim:
        assert claim is not None


class Clock(Disk):
    """This machine's disk with a clock that the test moves."""

    seconds = 0.0

    def now(self) -> float:
        return self.seconds


def elsewhere(folder: Path, disk: Disk | None = None) -> Store:
    """A store as a process on another machine has it."""
    disk = disk or Disk()
    return Store(folder, disk=disk, leases=Leases(disk, 60, ("elsewhere", os.getpid(), "other")))


def test_a_lease_of_another_machine_ends_when_it_was_seen_unchanged_for_its_length(tmp_path: Path) -> None:
    clock = Clock()
    ours = Store(tmp_path, disk=clock, retries=1)
    theirs = elsewhere(tmp_path).acquire("aa")
    assert theirs is not None
    for clock.seconds, renewed in ((0, False), (59, True), (61, False), (118, False)):
        if renewed:
            theirs.renew()
        assert ours.acquire("aa") is None
    clock.seconds = 119
    mine = ours.acquire("aa")
    assert mine is not None
    assert mine.before is not None
    assert mine.before.host == "elsewhere"
    with pytest.raises(LeaseLostError):
        theirs.renew()
    theirs.release()  # takes nothing away from who has it now
    mine.renew()
    assert "worker died" in ours.failures.of("aa")["error"]


def test_of_two_that_take_over_at_once_one_wins(tmp_path: Path) -> None:
    clocks = [Clock(), Clock()]
    rivals = [Store(tmp_path, disk=clock) for clock in clocks]
    assert elsewhere(tmp_path).acquire("aa") is not None
    for rival, clock in zip(rivals, clocks, strict=True):
        assert rival.acquire("aa") is None
        clock.seconds = 61

    before = clocks[1].names(tmp_path / "work/aa/lease")
    clocks[1].names = lambda folder: before  # type: ignore[method-assign]  # what a cache still says
    assert [rival.acquire("aa") is not None for rival in rivals] == [True, False]


def test_heartbeat_goes_on_and_says_how_far(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.claim("aa") as heartbeat:
        assert heartbeat is not None
        heartbeat.fraction = 0.25
        deadline = time.monotonic() + 10
        while store.heartbeat("aa")["fraction"] != 0.25:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert heartbeat.peak_memory > 1e6


def test_a_store_that_cannot_be_made_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="store="):
        Store(tmp_path / "file" / "runs")


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match=r"NaN|nan|JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


def _without(config: dict[str, Any], group: str, key: str) -> dict[str, Any]:
    return {**config, group: {k: v for k, v in config[group].items() if k != key}}


def _with(config: dict[str, Any], group: str, **changes: Any) -> dict[str, Any]:
    return {**config, group: {**config[group], **changes}}


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        (lambda config: config, None),
        (lambda config: _without(config, "method", "noise"), None),  # of before there was such a setting
        (lambda config: _without(config, "recipe", "clip_norm"), None),
        (lambda config: _with(config, "method", gone=1), None),  # and of before there was none
        (lambda config: _with(config, "method", sigma=0.2), "method.sigma"),
        (lambda config: _without(config, "method", "sigma"), "method.sigma"),
        (lambda config: _with(config, "method", name="daap"), "method.name"),
        (lambda config: _with(config, "recipe", clip_norm=1.0), "recipe.clip_norm"),
        (lambda config: _with(config, "dataset", corruptions={}), "dataset.corruptions"),
        (lambda config: {**config, "seed": 1}, "seed"),
        (lambda config: {**config, "model": "resnet_tiny"}, "model.name"),
        (lambda config: {}, "method.name"),
    ],
)
def test_a_card_that_states_other_settings_than_its_cell_is_set_aside(
    tmp_path: Path, change: Any, setting: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = load(["method=damp", "method.sigma=0.1"])[0]
    store = Store(tmp_path)
    store.write({**card(cell.id), "cell": change(json.loads(json.dumps(cell.as_dict())))})
    assert store.read(cell.id) is not None  # who does not know the cell can't tell
    assert (store.read(cell.id, cell) is None) == (setting is not None)
    assert store.has(cell.id) == (setting is None)
    if setting:
        assert f"states another {setting} than the cell that it is named after" in capsys.readouterr().err


def test_what_a_card_says_of_its_weights(tmp_path: Path) -> None:
    kept = {"sha256": "0f", "bytes": 3}
    for entry in (None, kept):
        assert check_card({**card("aa"), "weights": entry})
    for entry in ({}, 3, {**kept, "bytes": "x"}, {**kept, "sha256": 1}):
        with pytest.raises(DamagedCardError, match=r"weights|garbles"):
            check_card({**card("aa"), "weights": entry})


def test_a_store_to_read_from_must_be_there_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no card store"):
        Store(tmp_path / "runs", read_only=True)
    assert not (tmp_path / "runs").exists()
