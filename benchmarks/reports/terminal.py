"""The main numbers of a report, for the terminal at the end of a run."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from benchmarks.reports.evidence import Cards, gather
from benchmarks.reports.text import finding_text, published_text, spread_text, summary
from benchmarks.reports.verdicts import Verdict
from benchmarks.tables.published import Published
from benchmarks.tables.table import FULL, Table

COLOURS = {Verdict.REPRODUCED: "green", Verdict.DIFFERENT: "red", Verdict.INCONCLUSIVE: "yellow"}


def terminal_table(
    table: Table, scale: str, seeds: Sequence[int], cards: Cards, published: Published | None
) -> RenderableType:
    """The measured numbers beside the published ones, the verdicts on the claims, and their counts."""
    evidence = gather(table, scale, seeds, cards, published)
    panels = evidence.scale.panels
    full = scale == FULL

    note = "" if full else f" ({scale} scale: not comparable with the published numbers)"
    numbers = Grid(title=table.title + note, title_justify="left", box=box.SIMPLE_HEAD)
    numbers.add_column("")
    for column in table.columns:
        numbers.add_column(f"{column.label} ({column.unit})\npublished", justify="right", no_wrap=True)
        for panel in panels:
            numbers.add_column(f"{column.label} ({column.unit})\n{panel.label}", justify="right")
    for index, row in enumerate(table.rows):
        cells = [row.title]
        for position, column in enumerate(table.columns):
            here = [evidence.lines[panel.name][index].numbers[position] for panel in panels]
            cells += [published_text(here[0], column), *(spread_text(n.sample, column.digits) for n in here)]
        numbers.add_row(*cells)

    claims = Grid(
        title="Claims" + ("" if full else f" at {scale} scale"), title_justify="left", box=box.SIMPLE_HEAD
    )
    for heading in ("", *(panel.label for panel in panels)):
        claims.add_column(heading)
    found = {(this.claim.name, this.panel.name): this.finding for this in evidence.claims}
    for claim in table.claims:
        findings = [found[claim.name, panel.name] for panel in panels]
        texts = [Text(finding_text(f), COLOURS.get(f.verdict, "default")) for f in findings]
        claims.add_row(Text(claim.text), *texts)

    counts = "\n".join(f"{what}: {verdicts}" for what, verdicts in summary(evidence))
    return Group(numbers, claims, counts) if table.claims else Group(numbers, counts)
