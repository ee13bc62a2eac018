"""A table: which cells fill it, how they are laid out, and which claims it makes.

The file under ``configs/table/`` is the only place where a table is described; nothing here knows of any
one of them.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.errors import UserError, unknown_name
from benchmarks.reports.measures import check_metric
from benchmarks.tables.claims import Claim, Ratio, StatedNumber, read_claim
from benchmarks.tables.published import Published
from benchmarks.typed import build, by_name, read_yaml

NOT_PRINTED = "-"
"""Stands for the published column of a column that the paper does not print."""
FULL = "full"  # the papers' own schedule and data: the one scale whose numbers can reproduce a published one


@dataclass(frozen=True)
class Column:
    """A measured column: the mean of one or more metrics, or of other columns.

    ``relative``: divided by the same of the table's baseline row, seed by seed. ``margin``: how far from the published
    number is still the same, in ``unit``. ``mismatch``: why the column is not what the paper measured, at any
    scale; empty: it is.
    """

    name: str
    label: str
    metric: tuple[str, ...] = ()  # paths, see benchmarks.reports.measures
    mean_of: tuple[str, ...] = ()  # columns
    relative: bool = False
    unit: str = "%"
    digits: int = 2
    published: str | None = None  # the published column, where it is not called ``name``
    margin: float | None = None
    mismatch: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    ``published``: its key in the published file, in which ``{panel}`` is the panel's; a row of our own has none.
    """

    name: str
    label: str
    epochs: str = ""
    mode: str = "plain"
    published: str | None = None
    overrides: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The label with the epochs where they are stated."""
        return f"{self.label} {self.epochs}".strip()

    @property
    def method(self) -> str | None:
        """The method that the overrides name."""
        return next((text.partition("=")[2] for text in self.overrides if text.startswith("method=")), None)

    def published_in(self, panel: Panel) -> str | None:
        """The key of what was published for this row on ``panel``."""
        return self.published and self.published.replace("{panel}", panel.published or panel.name)


@dataclass(frozen=True)
class Panel:
    """The table once for this model (and data set).

    ``methods``: the papers' hyper-parameters of each method on it. ``published``: its name in the keys of published
    rows, where it is not called ``name`` or stands for a larger one.
    """

    name: str
    label: str
    published: str = ""
    overrides: tuple[str, ...] = ()
    methods: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """How much is run. ``seeds``: how many, from 0, unless somebody asks for others.

    ``rows``, ``columns``: those that it has; empty: all. ``stand_ins``: metric -> what takes its place in columns and
    claims, where the data cannot give the paper's own.
    """

    name: str
    seeds: int
    panels: tuple[Panel, ...]
    overrides: tuple[str, ...] = ()
    needs_gpu: bool = False
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # besides the table's
    stand_ins: dict[str, str] = field(default_factory=dict)
    about: str = ""  # data, models, schedule and cost in one sentence, for the head of the report


@dataclass(frozen=True)
class TableCell:
    """One training run of a table, as Hydra overrides, and the rows it fills."""

    rows: tuple[str, ...]
    panel: str
    seed: int
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table of the benchmark."""

    name: str  # as registered, e.g. damp/table2
    title: str
    description: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    scales: dict[str, Scale]
    claims: tuple[Claim, ...] = ()
    published: str | None = None  # the published file, e.g. damp/table2
    baseline: str | None = None  # the row that costs and corruption errors are divided by
    notes: tuple[str, ...] = ()  # how this differs from the authors' protocol, and what the reader must know

    def row(self, name: str) -> Row:
        """The row called ``name``."""
        return _find(self.rows, "row", name)

    def scale(self, name: str) -> Scale:
        """The scale called ``name``."""
        if name not in self.scales:
            raise unknown_name(f"scale of {self.name}", name, self.scales)
        return self.scales[name]

    def at(self, scale: str) -> Table:
        """The table with the rows, columns and metrics that ``scale`` has, and the claims on what is left."""
        chosen = self.scale(scale)
        rows = tuple(row for row in self.rows if not chosen.rows or row.name in chosen.rows)
        columns = tuple(
            replace(column, metric=tuple(chosen.stand_ins.get(metric, metric) for metric in column.metric))
            for column in self.columns
            if not chosen.columns or column.name in chosen.columns
        )
        known = {row.name for row in rows}
        claims = []
        for claim in self.claims:
            kept = claim.metrics_in([column.name for column in columns])
            if kept and known.issuperset(claim.rows):
                claims.append(claim.with_metrics(tuple(chosen.stand_ins.get(m, m) for m in kept)))
        notes = (*self.notes, *chosen.notes)
        return replace(self, rows=rows, columns=columns, claims=tuple(claims), notes=notes)

    def cells(self, scale: str, seeds: Iterable[int]) -> list[TableCell]:
        """The distinct cells of ``scale``, seed by seed, so that an interrupted table has whole seeds.

        The overrides are, in this order, those of the scale, the panel, the row, and the panel's for the
        row's method, then ``seed=N`` and ``scale=NAME``. Rows with the same overrides share a cell.
        """
        chosen = self.scale(scale)
        cells = []
        for seed in seeds:
            for panel in chosen.panels:
                shared: dict[tuple[str, ...], list[str]] = {}
                for row in self.rows:
                    method = panel.methods.get(row.method or "", ())
                    shared.setdefault((*row.overrides, *method), []).append(row.name)
                for overrides, rows in shared.items():
                    parts = (
                        *chosen.overrides,
                        *panel.overrides,
                        *overrides,
                        f"seed={seed}",
                        f"scale={scale}",
                    )
                    cells.append(TableCell(tuple(rows), panel.name, seed, parts))
        return cells

    def check_published(self, published: Published) -> None:
        """Raise a :class:`UserError` if a row or column points to nothing in ``published``."""
        keys = {
            row.published_in(panel)
            for row in self.rows
            for scale in self.scales.values()
            for panel in scale.panels
        }
        for key in filter(None, keys):
            for column in self.columns:
                if column.published != NOT_PRINTED:
                    printed = published.value(key, column.published or column.name)
                    if printed.unit != column.unit:
                        raise UserError(
                            f"{self.name}, column {column.name} is in {column.unit}, what was published in "
                            f"{printed.unit}; give both the same unit"
                        )


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


def _find(rows: tuple[Row, ...], kind: str, name: str) -> Row:
    for row in rows:
        if row.name == name:
            return row
    raise unknown_name(kind, name, [row.name for row in rows])


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
            _find(table.rows, f"row in {where}:", name)
        for pattern in claim.panels:
            if not fnmatch.filter(panels, pattern):
                raise unknown_name(f"panel in {where}:", pattern, panels)
        if isinstance(claim, Ratio | StatedNumber):
            _check_margin(claim.margin, where)
    if table.baseline is not None:
        _find(table.rows, f"row in {table.name}, baseline:", table.baseline)


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
