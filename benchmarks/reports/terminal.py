"""The main numbers of a report, for the terminal at the end of a run."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table as Grid
from rich.text import Text

from benchmarks.reports.evidence import Cards, gather
from benchmarks.reports.text import published_text, spread_text, summary
from benchmarks.tables.published import Published
from benchmarks.tables.table import FULL, Table


def terminal_table(
    table: Table, scale: str, seeds: Sequence[int], cards: Cards, published: Published | None
) -> Grid:
    """The measured numbers beside the published ones; below them how often each verdict was given."""
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
    grid.add_column("")
    panels = evidence.scale.panels
    for column in table.columns:
        grid.add_column(f"{column.label} ({column.unit})\npublished", justify="right", no_wrap=True)
        for panel in panels:
            grid.add_column(f"{column.label} ({column.unit})\n{panel.label}", justify="right")
    for index, row in enumerate(table.rows):
        cells = [row.title]
        for position, column in enumerate(table.columns):
            here = [evidence.lines[panel.name][index].numbers[position] for panel in panels]
            cells += [published_text(here[0]), *(spread_text(n.sample, column.digits) for n in here)]
        grid.add_row(*cells)
    return grid
