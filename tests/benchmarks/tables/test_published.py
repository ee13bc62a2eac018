"""The published numbers: what the file says, and what a wrong file gets."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.errors import UserError
from benchmarks.tables.published import load_published

FOLDER = Path(__file__).parents[3] / "configs" / "published"
FILES = sorted(FOLDER.rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(FOLDER)) for path in FILES])
def test_printed_averages_are_the_means_of_their_columns(path: Path) -> None:
    published = load_published(path)
    checked = 0
    for name, row in published.rows.items():
        for key, column in published.columns.items():
            parts = [row.values[part].value for part in column.mean_of]
            printed = row.values[key].value
            if not parts or printed is None or None in parts:
                continue
            mean = sum(part for part in parts if part is not None) / len(parts)
            # Parts and mean are rounded, which makes up to a digit; in the tables of errors half of it never shows.
            digits = 1.0 if column.unit == "ratio" else 0.5
            assert abs(mean - printed) <= digits * 10**-column.digits + 1e-9, (name, key)
            checked += 1
    assert checked or not any(column.mean_of for column in published.columns.values())


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(FOLDER)) for path in FILES])
def test_every_value_has_its_source_and_a_reason_where_something_is_not_known(path: Path) -> None:
    for row in load_published(path).rows.values():
        for value in row.values.values():
            assert value.source and value.certainty and value.runs
            assert value.reason or (value.value is not None and value.spread is not None)


def test_table2_as_printed() -> None:
    published = load_published(FOLDER / "damp" / "table2.yaml")
    assert len(published.rows) == 6 and len(published.columns) == 13
    damp = published.value("damp-200", "c")
    assert (damp.value, damp.unit, damp.runs, damp.spread) == (55.58, "%", 1, None)
    assert "row 4" in damp.source and "camera-ready" in damp.source
    assert "arXiv" in published.value("damp-200", "hard").source
    assert published.value("sam-100", "runtime").value == 41.0


def test_severities_of_the_first_version_average_to_table1() -> None:
    """SAM and ASAM were run anew for the final version, so theirs are only near."""
    first, final = (
        load_published(FOLDER / "damp" / f"{name}.yaml") for name in ("table1_by_severity", "table1")
    )
    for row, of_final, most in (
        ("sgd", "dropout", 0.06),
        ("damp", "damp", 0.06),
        ("sam", "sam", 0.35),
        ("asam", "asam", 0.35),
    ):
        for column in ("c", "c-bar"):
            values = [first.value(row, f"{column}-{severity}").value for severity in range(1, 6)]
            mean = sum(value for value in values if value is not None) / 5
            printed = final.value(of_final, column).value
            assert printed is not None
            assert abs(mean - printed) <= most, (row, column)


def small() -> dict[str, Any]:
    text = """
    paper: A paper
    table: Table 9
    setting: none
    versions: {first: first version}
    columns:
      clean: {label: Clean, unit: "%", digits: 1, version: first, certainty: high}
    rows:
      one: {label: One, source: row 1, values: {clean: {value: 10.0, spread: 0.1, bound: true, runs: 3}}}
      two: {label: Two, source: row 2, values: {clean: {value: null, reason: no digits are printed, runs: 3}}}
    """
    return yaml.safe_load(text)


def test_spread_bound_and_unknown_value() -> None:
    published = load_published(small())
    one, two = published.value("one", "clean"), published.value("two", "clean")
    assert (one.value, one.spread, one.bound, one.runs, one.reason) == (10.0, 0.1, True, 3, "")
    assert (two.value, two.reason) == (None, "no digits are printed")


def broken(*path: str, value: Any = None, delete: bool = False) -> dict[str, Any]:
    raw = copy.deepcopy(small())
    place = raw
    for key in path[:-1]:
        place = place[key]
    if delete:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return raw


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (broken("colums", value={}), r"unknown key in t: 'colums'; did you mean 'columns'"),
        (broken("paper", delete=True), r"t lacks the key 'paper'"),
        (broken("columns", "clean", "unit", value="percent"), r"unknown unit in t, column clean"),
        (broken("columns", "clean", "version", value="frist"), r"did you mean 'first'"),
        (broken("columns", "clean", "mean_of", value=["claen"]), r"did you mean 'clean'"),
        (broken("columns", "clean", "digits", value="two"), r"digits must be a whole number, not 'two'"),
        (broken("rows", "one", "values", "claen", value=1.0), r"unknown column in t, row one: 'claen'"),
        (broken("rows", "one", "values", "clean", delete=True), r"row one lacks clean; write \{value: null"),
        (broken("rows", "one", "values", "clean", "value", value=100.1), r"one, clean: 100.1 lies outside"),
        (broken("rows", "one", "values", "clean", "spread", value=-1), r"one, clean: -1 lies outside"),
        (broken("rows", "one", "values", "clean", "value", value=True), r"must be a number, not True"),
        (
            broken("rows", "one", "values", "clean", value=10.0),
            r"the spread is not known, so give the reason",
        ),
        (broken("rows", "two", "values", "clean", "reason", delete=True), r"value is not known, so give"),
        (broken("rows", "two", "values", "clean", "resaon", value=""), r"did you mean 'reason'"),
    ],
)
def test_a_wrong_file_is_named(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load_published(raw, "t")
    assert "\n" not in str(error.value)


def test_a_place_that_does_not_exist_is_named() -> None:
    published = load_published(small())
    with pytest.raises(UserError, match="unknown row of Table 9 'onne'; did you mean 'one'"):
        published.value("onne", "clean")
    with pytest.raises(UserError, match="unknown column of Table 9 'c'"):
        published.value("one", "c")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_published(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1\n")
    with pytest.raises(UserError, match="not valid YAML"):
        load_published(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match="must hold keys and values, not list"):
        load_published(tmp_path / "list.yaml")
