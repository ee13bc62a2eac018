"""A table: which cells fill it, how they are laid out, and which claims it makes.

The file under ``configs/table/`` is the only place where a table is described; nothing here knows of any
one of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from benchmarks.errors import UserError, unknown_name
from benchmarks.tables.claims import Claim
from benchmarks.tables.published import Published

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

    def row(self, name: str, kind: str = "row") -> Row:
        """The row called ``name``; ``kind`` is what the error calls it where there is none."""
        for row in self.rows:
            if row.name == name:
                return row
        raise unknown_name(kind, name, [row.name for row in self.rows])

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
