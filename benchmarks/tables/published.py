"""What a paper printed, as data: every value with its source, runs, spread, unit and certainty.

A value nobody knows is ``{value: null, reason: ...}``: it is shown as NO REFERENCE, and whoever has the
paper can fill it in without touching code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import UserError, unknown_name
from benchmarks.typed import build, read_yaml

# unit -> smallest and largest value it can have
UNITS: dict[str, tuple[float, float]] = {
    "%": (0.0, 100.0),
    "fraction": (0.0, 1.0),
    "nats": (0.0, math.inf),
    "hours": (0.0, math.inf),
    "ratio": (0.0, math.inf),
    "count": (0.0, math.inf),
}


@dataclass(frozen=True)
class PublishedColumn:
    """One column of a published table. ``mean_of``: the columns whose plain mean this one is."""

    label: str
    unit: str
    digits: int  # printed after the decimal point
    version: str  # which version of the paper prints it: a key of the file's ``versions``
    certainty: str
    mean_of: tuple[str, ...] = ()

    def show(self, value: float) -> str:
        """``value`` with the digits that the paper prints."""
        return f"{value:.{self.digits}f}"


@dataclass(frozen=True)
class PublishedValue:
    """One printed value. ``spread``: standard deviation over ``runs`` runs, or its upper ``bound``."""

    value: float | None
    unit: str
    runs: int | None
    spread: float | None
    bound: bool
    digits: int  # printed after the decimal point
    certainty: str
    source: str
    reason: str  # why the value, or else its spread, is not known


@dataclass(frozen=True)
class PublishedRow:
    """One row of a published table: ``values`` by column."""

    label: str
    epochs: int | None
    source: str  # where in the table
    values: Mapping[str, PublishedValue]


@dataclass(frozen=True)
class Published:
    """A published table."""

    paper: str
    table: str
    setting: str
    versions: Mapping[str, str]
    columns: Mapping[str, PublishedColumn]
    rows: Mapping[str, PublishedRow]

    def value(self, row: str, column: str) -> PublishedValue:
        """The value printed in ``row`` and ``column``; a :class:`UserError` where there is no such place."""
        if row not in self.rows:
            raise unknown_name(f"row of {self.table}", row, self.rows)
        if column not in self.columns:
            raise unknown_name(f"column of {self.table}", column, self.columns)
        return self.rows[row].values[column]


@dataclass(frozen=True)
class _File:
    """The file's layout. ``runs`` and ``no_spread`` hold for every value that does not say otherwise."""

    paper: str
    table: str
    setting: str
    versions: dict[str, str]
    columns: dict[str, PublishedColumn]
    rows: dict[str, _Row]
    runs: int | None = None
    no_spread: str = ""


@dataclass(frozen=True)
class _Row:
    label: str
    source: str
    values: dict[str, Any]
    epochs: int | None = None


@dataclass(frozen=True)
class _Value:
    """A value that has more to say than its number."""

    value: float | None
    spread: float | None = None
    bound: bool = False  # the spread is printed as "less than"
    runs: int | None = None
    certainty: str = ""
    reason: str = ""


def load_published(source: Path | str | Mapping[str, Any], name: str = "") -> Published:
    """Read and check a published table from a YAML file or a mapping (``name`` is what errors call it)."""
    where = name or (str(source) if isinstance(source, str | Path) else "published table")
    file = build(_File, source if isinstance(source, Mapping) else read_yaml(Path(source)), where)
    for key, column in file.columns.items():
        if column.unit not in UNITS:
            raise unknown_name(f"unit in {where}, column {key}:", column.unit, UNITS)
        if column.version not in file.versions:
            raise unknown_name(f"version in {where}, column {key}:", column.version, file.versions)
        for part in column.mean_of:
            if part not in file.columns:
                raise unknown_name(f"column in {where}, mean_of of {key}:", part, file.columns)
    rows = {key: _row(file, row, f"{where}, row {key}") for key, row in file.rows.items()}
    return Published(file.paper, file.table, file.setting, file.versions, file.columns, rows)


def _row(file: _File, row: _Row, where: str) -> PublishedRow:
    for key in row.values:
        if key not in file.columns:
            raise unknown_name(f"column in {where}:", key, file.columns)
    missing = [key for key in file.columns if key not in row.values]
    if missing:
        raise UserError(
            f"{where} lacks {', '.join(missing)}; write {{value: null, reason: ...}} if it is not known"
        )
    values = {key: _value(file, row, key, f"{where}, {key}") for key in file.columns}
    return PublishedRow(row.label, row.epochs, row.source, values)


def _value(file: _File, row: _Row, key: str, where: str) -> PublishedValue:
    raw, column = row.values[key], file.columns[key]
    value = build(_Value, raw if isinstance(raw, Mapping) else {"value": raw}, where)
    low, high = UNITS[column.unit]
    for number in (value.value, value.spread):
        if number is not None and not low <= number <= high:
            raise UserError(
                f"{where}: {number:g} lies outside the range of {column.unit} ({low:g} to {high:g})"
            )
    runs = file.runs if value.runs is None else value.runs
    if runs is not None and runs < (1 if value.spread is None else 2):
        raise UserError(f"{where}: runs is {runs}; at least 1 is needed, and 2 where there is a spread")
    reason = value.reason or (file.no_spread if value.value is not None and value.spread is None else "")
    if (value.value is None or value.spread is None) and not reason:
        unknown = "value" if value.value is None else "spread"
        raise UserError(f"{where}: the {unknown} is not known, so give the reason (reason: ...)")
    source = (
        f"{file.paper}, {file.table}, {row.source}, column {column.label} ({file.versions[column.version]})"
    )
    certainty = value.certainty or column.certainty
    return PublishedValue(
        value.value, column.unit, runs, value.spread, value.bound, column.digits, certainty, source, reason
    )
