"""`weightaug compare`: what is matched, what counts as noise, what is a regression."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, Done
from made_cards import made_card, put, seeds

BEFORE = [5.0, 5.4, 4.7, 5.2, 5.1]


def change(done: Done, metric: str, cells: str = "") -> str:
    """What the table of all comparisons says of a metric."""
    folded = done.stdout.partition("<summary>All")[2]
    rows = [line.split(" | ") for line in folded.splitlines() if line.startswith(f"| {cells}")]
    return next(row[6].strip("*") for row in rows if row[1] == metric)


def test_the_same_cards_are_equal_to_the_last_digit(weightaug: CommandLine, tmp_path: Path) -> None:
    a = put(tmp_path / "a", *seeds("damp", BEFORE))
    done = weightaug("compare", a, a)
    assert done.returncode == 0
    assert done.stdout.startswith("**no regression: 0 worse, 0 better, 0 within noise, 4 equal**\n")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("after", "said", "code"),
    [
        ([e + d for e, d in zip(BEFORE, (0.2, -0.4, 0.4, 0.0, -0.2), strict=True)], "within noise", 0),
        ([e + d for e, d in zip(BEFORE, (6.2, 5.8, 6.4, 6.0, 5.8), strict=True)], "worse", 1),
        ([e + d for e, d in zip(BEFORE, (-3.2, -3.1, -3.4, -3.0, -3.3), strict=True)], "better", 0),
        ([e * (1 + 3e-7) for e in BEFORE], "within noise", 0),  # the last digits of another machine
        (
            [e + 1e-7 for e in BEFORE],
            "within noise",
            0,
        ),  # all in one direction, which a t test would call certain
    ],
)
def test_paired_seeds(
    weightaug: CommandLine, tmp_path: Path, after: list[float], said: str, code: int
) -> None:
    done = weightaug(
        "compare", put(tmp_path / "a", *seeds("damp", BEFORE)), put(tmp_path / "b", *seeds("damp", after))
    )
    assert done.returncode == code, done.stdout
    assert [change(done, f"plain clean.{key}") for key in ("error", "nll", "ece")] == [said] * 3
    assert ("REGRESSION" in done.stdout.splitlines()[0]) == bool(code)


def test_other_seeds_are_compared_unpaired_and_one_against_several(
    weightaug: CommandLine, tmp_path: Path
) -> None:
    a = put(tmp_path / "a", *seeds("damp", BEFORE))
    worse = weightaug("compare", a, put(tmp_path / "b", *seeds("damp", [9.0, 9.3, 9.1], first=7)))
    assert "Welch's t" in worse.stdout
    assert (worse.returncode, change(worse, "plain clean.error")) == (1, "worse")
    for error, said, code in ((5.3, "within noise", 0), (9.0, "worse", 1)):
        one = weightaug("compare", a, put(tmp_path / f"{error}", *seeds("damp", [error], first=7)))
        assert "Student's t" in one.stdout
        assert (one.returncode, change(one, "plain clean.error")) == (code, said)


def test_one_seed_a_side_has_the_test_images_alone(weightaug: CommandLine, tmp_path: Path) -> None:
    a = put(tmp_path / "a", *seeds("damp", [100 * 27 / 540]))
    noise = weightaug("compare", a, put(tmp_path / "b", *seeds("damp", [100 * 31 / 540])))
    assert "two proportions of 540 test images" in noise.stdout
    assert (noise.returncode, change(noise, "plain clean.error")) == (0, "within noise")
    assert change(noise, "plain clean.nll") == "not judged"
    worse = weightaug("compare", a, put(tmp_path / "c", *seeds("damp", [100 * 80 / 540])))
    assert (worse.returncode, change(worse, "plain clean.error")) == (1, "worse")


def test_seeds_that_all_differ_by_one_image_are_not_certain(weightaug: CommandLine, tmp_path: Path) -> None:
    a = put(tmp_path / "a", *seeds("damp", [100 * n / 540 for n in (27, 30, 28)]))
    done = weightaug("compare", a, put(tmp_path / "b", *seeds("damp", [100 * n / 540 for n in (28, 31, 29)])))
    assert (done.returncode, change(done, "plain clean.error")) == (0, "within noise")


def test_a_run_that_diverges_where_none_had_is_a_regression(weightaug: CommandLine, tmp_path: Path) -> None:
    good, bad = seeds("damp", [5.0, 5.2, 5.1]), seeds("damp", [5.0, None, 5.1])
    a, b = put(tmp_path / "a", *good), put(tmp_path / "b", *bad)
    done = weightaug("compare", a, b)
    assert done.returncode == 1
    assert "1 newly diverged" in done.stdout.splitlines()[0]
    assert weightaug("compare", b, a).returncode == 0
    assert weightaug("compare", b, b).returncode == 0


def test_cells_of_one_side_alone_are_named_and_no_regression(weightaug: CommandLine, tmp_path: Path) -> None:
    a = put(tmp_path / "a", *seeds("damp", BEFORE), *seeds("sam", [4.0]))
    done = weightaug("compare", a, put(tmp_path / "b", *seeds("damp", BEFORE), *seeds("was", [3.0, 4.0])))
    assert done.returncode == 0
    assert "lacks cells that" in done.stderr
    assert "- sam resnet_tiny digits 3 epochs: seed 0" in done.stdout
    assert "- was resnet_tiny digits 3 epochs: seeds 0, 1" in done.stdout


def test_cells_that_differ_in_a_setting_are_told_apart(weightaug: CommandLine, tmp_path: Path) -> None:
    cards = [made_card(["method=damp", f"method.sigma={s}"], 5.0) for s in (0.1, 0.2)]
    a = put(tmp_path / "a", *cards)
    done = weightaug("compare", a, a)
    assert re.findall(r"method.sigma=\d.\d \| plain clean.error", done.stdout) == [
        "method.sigma=0.1 | plain clean.error",
        "method.sigma=0.2 | plain clean.error",
    ]


def test_cards_of_another_protocol_version_or_without_newer_settings_are_matched(
    weightaug: CommandLine, tmp_path: Path
) -> None:
    new = seeds("damp", BEFORE)
    old: list[dict[str, Any]] = [
        json.loads(json.dumps({**card, "id": f"{i:016x}"})) for i, card in enumerate(new)
    ]
    for card in old:
        del card["cell"]["evaluation"]["pgd_steps"]
        card["cell"]["recipe"]["learning_rate"] = card["cell"]["recipe"]["learning_rate"] + 0
    done = weightaug("compare", put(tmp_path / "a", *old), put(tmp_path / "b", *new))
    assert change(done, "plain clean.error") == "equal"


def test_seconds_are_compared_on_the_same_hardware_alone_and_are_no_regression(
    weightaug: CommandLine, tmp_path: Path
) -> None:
    a = seeds("damp", BEFORE)
    slow = [{**card, "cost": {**card["cost"], "seconds_per_epoch": 9.0 + i / 9}} for i, card in enumerate(a)]
    other = [
        {**card, "provenance": {**card["provenance"], "hardware": {"processor": "other"}}} for card in slow
    ]
    first = put(tmp_path / "a", *a)
    done = weightaug("compare", first, put(tmp_path / "b", *slow))
    assert (done.returncode, change(done, "cost.seconds_per_epoch")) == (0, "slower")
    assert "1 slower" in done.stdout.splitlines()[0]
    assert "seconds_per_epoch" not in weightaug("compare", first, put(tmp_path / "c", *other)).stdout


def test_damaged_foreign_and_second_cards_are_named_and_the_rest_goes_on(
    weightaug: CommandLine, tmp_path: Path
) -> None:
    cards = seeds("damp", BEFORE)
    a = put(tmp_path / "a", *cards)
    folder = tmp_path / "a" / "cards"
    (folder / "copy.json").write_text(json.dumps(cards[0]))
    (folder / "foreign.json").write_text(json.dumps({**cards[0], "schema": 99}))
    (folder / "truncated.json").write_text(json.dumps(cards[0])[:200])
    done = weightaug("compare", a, put(tmp_path / "b", *cards), "--out", "said.md")
    assert done.returncode == 0
    assert f"copy.json: is the card of cell {cards[0]['id']} under another name" in done.stderr
    assert "foreign.json: has layout version 99" in done.stderr
    assert "truncated.json: " in done.stderr
    assert "copy.json" in done.stdout
    assert Path("said.md").read_text() == done.stdout
    assert len(list(folder.iterdir())) == len(cards) + 3  # nothing is moved


def test_a_git_revision(weightaug: CommandLine, tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
        subprocess.run(["git", *who, *arguments], check=True, capture_output=True)

    git("init", "-q")
    put(Path("reports/smoke/made-up"), *seeds("damp", BEFORE))
    git("add", "."), git("commit", "-qm", "before")
    put(Path("reports/smoke/made-up"), *seeds("damp", [error + 4 for error in (5.1, 5.3, 4.9, 5.2, 5.2)]))
    done = weightaug("compare", "git:HEAD", "reports")
    assert (done.returncode, change(done, "plain clean.error")) == (1, "worse")
    assert weightaug("compare", "git:HEAD:reports/smoke", "git:HEAD").returncode == 0
    assert (
        "give git:REVISION[:PATH] inside the repository"
        in weightaug("compare", "git:nowhere", "reports").stderr
    )


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        (("nowhere", "a"), "nowhere: no such folder"),
        (("empty", "a"), "no card in empty; train some with `weightaug reproduce TABLE"),
        (("a", "other"), "have no cells in common"),
    ],
)
def test_bad_input(weightaug: CommandLine, tmp_path: Path, sides: tuple[str, str], said: str) -> None:
    put(tmp_path / "a", *seeds("damp", [5.0]))
    put(tmp_path / "other", *seeds("sam", [5.0]))
    (tmp_path / "empty").mkdir()
    done = weightaug("compare", *sides)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
