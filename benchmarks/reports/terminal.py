"""A table's main numbers on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table as Grid
from rich.text import Text

from benchmarks.reports.evidence import Cards, Number, gather
from benchmarks.reports.text import published_text, spread_text, summary
from benchmarks.tables.published import Published
from benchmarks.tables.table import FULL, Table

WIDE = 6
"""A table of more columns is shown with its rows as columns."""


def terminal_table(
    table: Table, scale: str, seeds: Sequence[int], cards: Cards, published: Published | None
) -> Grid:
    """Panel by panel the measured numbers, the published ones below; then how often each verdict was given."""
    evidence = gather(table, scale, seeds, cards, published)
    note = "" if scale == FULL else f" ({scale} scale: never compare with the published numbers)"
    counts = "\n".join(f"{what}: {verdicts}" for what, verdicts in summary(evidence))
    grid = Grid(
        title=Text(table.title + note),
        caption=Text(counts),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    columns = [f"{column.label} ({column.unit})" for column in table.columns]
    rows = [row.title for row in table.rows]
    turned = len(columns) > WIDE
    grid.add_column("")
    for heading in rows if turned else columns:
        grid.add_column(heading, justify="right")
    for panel in evidence.scale.panels:
        cells = [[_cell(number) for number in line.numbers] for line in evidence.lines[panel.name]]
        grid.add_row(Text(panel.label, style="bold"))
        headings, body = (columns, zip(*cells, strict=True)) if turned else (rows, iter(cells))
        for heading, texts in zip(headings, body, strict=True):
            grid.add_row(heading, *texts)
        grid.add_section()
    return grid


def _cell(number: Number) -> str:
    """What was measured, and in a second line what was published, where anything was."""
    measured = spread_text(number.sample, number.column.digits)
    printed = published_text(number)
    return measured if printed == "–" else f"{measured}\n(published {printed})"
