"""Tables read from their files, and checked: what is wrong is named before anything is composed."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.errors import UserError, unknown_name
from benchmarks.reports.measures import check_metric
from benchmarks.tables.claims import Ratio, StatedNumber, read_claim
from benchmarks.tables.table import Column, Panel, Row, Scale, Table
from benchmarks.typed import build, by_name, read_yaml


def load_table(source: Path | str | Mapping[str, Any], name: str = "") -> Table:
    """Read and check a table from a YAML file or a mapping.

    ``name`` is the registered name; that of a file is its path below the folder ``table``, without the
    suffix.
    """
    if isinstance(source, Mapping):
        raw, where = dict(source), name or "table"
    else:
        path = Path(source)
        raw, where = read_yaml(path), name or _registered_name(path)
    raw["columns"] = _named(Column, _with_lists(raw.get("columns"), "metric"), f"{where}: columns")
    raw["rows"] = _named(Row, raw.get("rows"), f"{where}: rows")
    raw["claims"] = tuple(
        read_claim(claim, f"{where}: claims[{i}]") for i, claim in enumerate(raw.get("claims") or ())
    )
    scales = raw.get("scales")
    if not isinstance(scales, Mapping) or not scales:
        raise UserError(f"{where} needs at least one scale under 'scales'")
    raw["scales"] = {key: _scale(key, value, f"{where}: scale {key}") for key, value in scales.items()}
    table = build(Table, {**raw, "name": where}, where)
    _check(table)
    return table


def _registered_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    if "table" in parts:
        parts = parts[len(parts) - parts[::-1].index("table") :]
    return "/".join(parts[-2:])


def _named(cls: type, raw: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(raw, Sequence) or isinstance(raw, str) or not raw:
        raise UserError(f"{where} must be a list with at least one entry")
    items: tuple[Any, ...] = tuple(build(cls, item, f"{where}[{index}]") for index, item in enumerate(raw))
    by_name(items, where)
    return items


def _scale(name: str, raw: Any, where: str) -> Scale:
    if not isinstance(raw, Mapping):
        raise UserError(f"{where} must hold keys and values, not {raw!r}")
    panels = _named(Panel, raw.get("panels"), f"{where}: panels")
    scale = build(Scale, {**raw, "name": name, "panels": panels}, where)
    if scale.seeds < 1:
        raise UserError(f"{where}: seeds must be at least 1, not {scale.seeds}")
    return scale


def _with_lists(items: Any, key: str) -> Any:
    """``items`` with a list under ``key`` where a file says a single name."""
    if not isinstance(items, Sequence):
        return items
    return [
        {**item, key: [item[key]]} if isinstance(item, Mapping) and isinstance(item.get(key), str) else item
        for item in items
    ]


def _check(table: Table) -> None:
    """What the types cannot say: names that point somewhere, metrics that exist, margins that can hold."""
    by_name(table.claims, f"{table.name}: claims")
    titles = [row.title for row in table.rows]
    for title in titles:
        if titles.count(title) > 1:
            raise UserError(
                f"{table.name}: two rows are shown as {title!r}; change the label or epochs of one"
            )
    _check_columns(table)
    for scale in table.scales.values():
        _check_scale(table, scale)
    panels = [panel.name for scale in table.scales.values() for panel in scale.panels]
    for claim in table.claims:
        where = f"{table.name}, claim {claim.name}"
        claim.check(where, [column.name for column in table.columns])
        for name in claim.rows:
            table.row(name, f"row in {where}:")
        for pattern in claim.panels:
            if not fnmatch.filter(panels, pattern):
                raise unknown_name(f"panel in {where}:", pattern, panels)
        if isinstance(claim, Ratio | StatedNumber):
            _check_margin(claim.margin, where)
    if table.baseline is not None:
        table.row(table.baseline, f"row in {table.name}, baseline:")


def _check_columns(table: Table) -> None:
    names = [column.name for column in table.columns]
    for index, column in enumerate(table.columns):
        where = f"{table.name}, column {column.name}"
        if bool(column.metric) == bool(column.mean_of):
            raise UserError(f"{where} needs either metric or mean_of")
        for metric in column.metric:
            check_metric(metric, where)
        for name in column.mean_of:
            if name not in names[:index]:
                raise unknown_name(f"column before {where}:", name, names[:index])
        if column.relative and table.baseline is None:
            raise UserError(f"{where} is relative, so the table needs a baseline")
        _check_margin(column.margin, where)


def _check_scale(table: Table, scale: Scale) -> None:
    """Columns that exist, with all that they are the mean of, and metrics that exist, in the place of used ones."""
    where = f"{table.name}, scale {scale.name}"
    named = {column.name: column for column in table.columns}
    rows = [row.name for row in table.rows]
    for name in scale.rows:
        if name not in rows:
            raise unknown_name(f"row in {where}:", name, rows)
    if scale.rows and table.baseline is not None and table.baseline not in scale.rows:
        raise UserError(f"{where}: rows leave out {table.baseline}, the baseline")
    for name in scale.columns:
        if name not in named:
            raise unknown_name(f"column in {where}:", name, named)
        for part in named[name].mean_of:
            if part not in scale.columns:
                raise UserError(
                    f"{where}: the column {name} is the mean of {part}, which the scale leaves out"
                )
    used = {metric for item in table.columns for metric in item.metric}
    used |= {metric for claim in table.claims for metric in claim.metrics}
    for metric, other in scale.stand_ins.items():
        if metric not in used:
            raise unknown_name(f"metric in {where}, stand_ins:", metric, sorted(used))
        check_metric(other, f"{where}, stand_ins")


def _check_margin(margin: float | None, where: str) -> None:
    if margin is not None and margin <= 0:
        raise UserError(f"{where}: the margin must be above 0, not {margin:g}")
