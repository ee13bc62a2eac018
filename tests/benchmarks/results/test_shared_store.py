"""A store that several machines write to: who may, what a failure costs, a disk that takes nothing."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from interrupted_runs import small_trainer

from benchmarks import registry
from benchmarks.errors import UserError
from benchmarks.results import disk as disk_module
from benchmarks.results.code import PACKAGES, SUFFIXES, Code, code
from benchmarks.results.disk import Disk, DiskError
from benchmarks.results.heartbeat import Heartbeat
from benchmarks.results.lease import LeaseLostError, Leases
from benchmarks.results.store import Store
from benchmarks.runtime import Runtime
from benchmarks.simulation.table import card


class Clock(Disk):
    """This machine's disk with a clock that moves only when somebody waits."""

    seconds = 0.0

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.meanwhile = meanwhile

    def now(self) -> float:
        return self.seconds

    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        self.meanwhile()


def on(folder: Path, host: str, written_by: str | None = None, disk: Disk | None = None) -> Store:
    """The store as a process of ``host`` has it, which nobody else can see."""
    disk = disk or Clock()
    mine = Code(written_by) if written_by else None
    return Store(folder, code=mine, disk=disk, leases=Leases(disk, 60, (host, 7, host)), retries=2)


def test_the_code_of_a_store_changes_only_while_nobody_is_at_work(tmp_path: Path) -> None:
    old = on(tmp_path, "first", "aaaa")
    old.enter()
    lease = old.acquire("cell")
    assert lease is not None
    on(tmp_path, "second", "aaaa").enter()
    with pytest.raises(
        UserError, match=r"code aaaa.*process 7 on first runs cell cell.*code bbbb.*mixed_versions"
    ):
        on(tmp_path, "second", "bbbb", Clock(lease.renew)).enter()
    stated = json.loads((tmp_path / "code.json").read_text())
    assert stated["digest"] == "aaaa"
    on(tmp_path, "second").enter()  # mixed_versions=allow
    lease.release()
    on(tmp_path, "second", "bbbb").enter()
    with pytest.raises(UserError, match=r"code bbbb.*taken over.*code aaaa"):
        old.acquire("other")
    assert not old.begun() - {"cell"}


def test_a_worker_that_died_with_other_code_does_not_keep_the_store(tmp_path: Path) -> None:
    old = on(tmp_path, "first", "aaaa")
    old.enter()
    assert old.acquire("cell") is not None
    clock = Clock()
    on(tmp_path, "second", "bbbb", clock).enter()
    assert 60 <= clock.seconds <= 62
    assert json.loads((tmp_path / "code.json").read_text())["digest"] == "bbbb"


def test_a_plugin_counts_where_both_have_it(tmp_path: Path) -> None:
    def on_with(host: str, plugins: dict[str, str], meanwhile: Callable[[], None] = lambda: None) -> Store:
        store = on(tmp_path, host, disk=Clock(meanwhile))
        store.code = Code("aaaa", plugins)
        return store

    plain, first = on_with("plain", {}), on_with("first", {"mine": "1111"})
    plain.enter()
    first.enter()  # its own cells are none of the others'
    plain.enter()
    lease = plain.acquire("cell")
    assert lease is not None
    with pytest.raises(UserError, match=r"mine \(code 1111\): .* with plug-in mine \(code 2222\)\. Wait"):
        on_with("second", {"mine": "2222", "other": "3333"}, lease.renew).enter()
    lease.release()
    on_with("second", {"mine": "2222", "other": "3333"}).enter()
    assert plain.acquire("cell") is not None
    with pytest.raises(UserError, match=r"mine .*taken over"):
        first.acquire("another")


def test_what_belongs_to_the_code_of_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [EntryPoint("mine", "pl_cfg.own", group)]
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = tmp_path / "pl_cfg/own/method/mine.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("_target_: pl_code.Mine\n")
    (tmp_path / "pl_cfg/own/names.yaml").write_text("- no config\n")
    (tmp_path / "pl_cfg/own/method/theirs.yaml").write_text("_target_: torch.nn.Linear\n")
    for file in (
        "pl_cfg/__init__.py",
        "pl_cfg/own/__init__.py",
        "pl_code.py",
        "pl_cfg/table.bin",
        "unrelated.py",
    ):
        (tmp_path / file).write_bytes(b"")

    def digest() -> str:
        for function in (registry._plugins, registry.folders, code):
            function.cache_clear()
        return code().plugins["mine"]

    known = {digest()}
    for file in ("unrelated.py", "pl_cfg/.hidden"):
        (tmp_path / file).write_text("changed")
        assert {digest()} == known
    for file, content in (
        ("pl_code.py", b"changed"), ("pl_cfg/table.bin", bytes(4 << 20)), ("pl_cfg/table.bin", bytes(5 << 20)),
        ("pl_cfg/own/method/mine.yaml", b"_target_: pl_code.Mine\nx: 1\n"), ("pl_cfg/own/new.txt", b""),
    ):  # fmt: skip
        (tmp_path / file).write_bytes(content)
        assert digest() not in known
        known.add(digest())
    monkeypatch.undo()
    for function in (registry._plugins, registry.folders, code):
        function.cache_clear()


def test_files_that_decide_results_belong_to_our_code() -> None:
    root = Path(__file__).resolve().parents[3]
    others = {
        path.relative_to(root).as_posix()
        for package in PACKAGES
        for path in (root / package).rglob("*")
        if path.is_file() and path.suffix not in (*SUFFIXES, ".pyc") and path.parent.name != "templates"
    }
    assert others <= {"benchmarks/speed/gpu.sh"}


def test_settings_choose_the_store(tmp_path: Path) -> None:
    store = Store.of(Runtime(store=str(tmp_path), retries=5, lease_seconds=7))
    assert (store.failures.retries, store.leases.seconds, store.code) == (5, 7, code())
    assert code().name.endswith(f"(code {code().digest})")
    assert Store.of(Runtime(store=str(tmp_path), mixed_versions="allow")).code is None
    for wrong in ({"mixed_versions": "both"}, {"retries": -1}, {"lease_seconds": 0.1}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            Runtime(**wrong)  # type: ignore[arg-type]


def test_a_cell_is_given_up_after_its_tries_and_tried_again_on_request(tmp_path: Path) -> None:
    store = Store(tmp_path, retries=1)
    store.failures.add("aa", "no luck", "where")
    assert (store.failures.given_up("aa"), store.settled("aa")) == (None, False)
    store.failures.add("aa", "no luck again", "there")
    assert store.failures.given_up("aa") == "no luck again"
    assert [attempt["error"] for attempt in store.failures.of("aa")["attempts"]] == [
        "no luck",
        "no luck again",
    ]
    store.failures.forgive({"aa", "bb"})
    assert store.failures.given_up("aa") is None
    assert len(store.failures.of("aa")["attempts"]) == 2
    store.failures.add("aa", "of no use", "", final=True)
    assert store.failures.given_up("aa") == "of no use"


def test_deaths_count_as_failed_tries_unless_the_cell_has_advanced(tmp_path: Path) -> None:
    def die(host: str, advance: bool) -> Store:
        """A process of a machine that takes the cell over from the one before, and never moves again."""
        disk = Clock()
        store = on(tmp_path, host, disk=disk)
        lease = store.acquire("aa")
        if lease is None:
            disk.wait(61)
            lease = store.acquire("aa")
        assert lease is not None
        checkpoint = store.work("aa") / "checkpoint.pt"
        Heartbeat(store.work("aa") / "heartbeat.json", lease, disk, checkpoint=disk.stamp(checkpoint)).say()
        if advance:
            checkpoint.write_text(host)
        return store

    tries = [
        die(f"host{n}", advance).failures.of("aa").get("tries", 0) for n, advance in enumerate((1, 0, 0, 0))
    ]
    assert tries == [0, 0, 1, 2]  # the first had advanced, the others had not; each is counted by the next
    assert die("host4", False).failures.given_up("aa") is not None


def test_who_has_lost_the_lease_writes_nothing(tmp_path: Path) -> None:
    disk = Clock()
    ours, theirs = on(tmp_path, "ours"), on(tmp_path, "theirs", disk=disk)
    with ours.claim("aa") as heartbeat:
        assert heartbeat is not None
        trainer = small_trainer()
        trainer.may_write = heartbeat.check
        trainer.save(ours.work("aa") / "checkpoint.pt")
        before = (ours.work("aa") / "checkpoint.pt").stat().st_mtime_ns
        heartbeat._stop.set()  # as a process that is paused
        heartbeat._thread.join()
        theirs.acquire("aa")
        disk.seconds = 61
        lease = theirs.acquire("aa")
        assert lease is not None
        with pytest.raises(LeaseLostError):
            trainer.save(ours.work("aa") / "checkpoint.pt")
        with pytest.raises(LeaseLostError):
            ours.write(card("aa"), heartbeat.check)
        with pytest.raises(LeaseLostError):
            heartbeat.fraction = 0.5
    assert not ours.has("aa")
    assert (ours.work("aa") / "checkpoint.pt").stat().st_mtime_ns == before
    assert not list(tmp_path.rglob("*partial*"))
    theirs.write(card("aa"), lease.renew)
    with pytest.raises(LeaseLostError, match="another worker has finished"):
        ours.write(card("aa"))
    theirs.release("aa", lease)
    assert not theirs.begun()
    assert ours.acquire("aa") is None  # finished


def _hold(folder: Path, claimed: Any, lost: Any) -> None:
    with on(folder, "paused", disk=Disk()).claim("aa") as heartbeat:
        assert heartbeat is not None
        claimed.set()
        while True:
            try:
                heartbeat.check()
                time.sleep(0.02)
            except LeaseLostError:
                lost.set()
                return


def test_a_paused_process_finds_out_when_it_wakes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    claimed, lost = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, claimed, lost))
    process.start()
    try:
        assert claimed.wait(30)
        os.kill(process.pid or 0, signal.SIGSTOP)
        disk = Clock()
        awake = on(tmp_path, "awake", disk=disk)
        lease = None
        while lease is None:  # its last beat before the pause may come late
            lease = awake.acquire("aa")
            disk.wait(61)
            assert disk.seconds < 1000
        os.kill(process.pid or 0, signal.SIGCONT)
        assert lost.wait(30)
        process.join(30)
        lease.renew()
    finally:
        process.kill()


class Full(Disk):
    """A disk that takes nothing for so many times."""

    def __init__(self, times: float, number: int = errno.ENOSPC) -> None:
        self.times, self.number = times, number

    def create(self, path: Path, text: str = "") -> None:
        self.times -= 1
        if self.times >= 0 and ".json" in path.name:
            raise OSError(self.number, os.strerror(self.number), str(path))
        super().create(path, text)

    def wait(self, seconds: float) -> None:
        time.sleep(0.001)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_card_waits_for_room_or_is_kept_elsewhere(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "aside"))
    (tmp_path / "aside").mkdir()
    store = Store(tmp_path, disk=Full(3, number))
    store.write(card("aa"))
    assert store.has("aa")
    assert os.strerror(number) in capsys.readouterr().err
    monkeypatch.setattr(disk_module, "PATIENCE_SECONDS", 0.05)
    store = Store(tmp_path, disk=Full(float("inf"), number))
    with pytest.raises(
        DiskError, match=rf"{os.strerror(number)}.*the card lies in .*weightaug-bb\.json, move it"
    ):
        store.write(card("bb"))
    assert json.loads((tmp_path / "aside" / "weightaug-bb.json").read_text())["id"] == "bb"
    assert [path.name for path in store.cards.iterdir()] == ["aa.json"]


def test_a_full_disk_costs_a_checkpoint_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = small_trainer("recipe.epochs=1")
    trainer.save(tmp_path / "checkpoint.pt")
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        progress = trainer.run(tmp_path / "checkpoint.pt", every=0)
    assert progress.epoch == 1
    assert "No space left" in capsys.readouterr().err
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_disk_without_hard_links_has_one_card_too(tmp_path: Path) -> None:
    class Plain(Disk):
        def link(self, path: Path, new: Path) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    store = Store(tmp_path, disk=Plain())
    store.write(card("aa"))
    assert store.read("aa") == card("aa")
    with pytest.raises(LeaseLostError):
        store.write(card("aa"))
    assert [path.name for path in store.cards.iterdir()] == ["aa.json"]


def test_a_store_that_takes_nothing_is_found_out_before_training(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        target = Path("/proc/self")
    else:
        target = tmp_path
        target.chmod(0o500)
    with pytest.raises(
        UserError, match=r"the card store .* can't be used: .*; choose another \(store=FOLDER\)"
    ):
        Store(target / "runs")
