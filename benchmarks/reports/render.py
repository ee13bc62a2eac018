"""A table's report: Markdown, plots and the cards it was made from, so that it can be made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors import UserError
from benchmarks.markdown import template
from benchmarks.reports import sections
from benchmarks.reports.evidence import Cards, Evidence, gather
from benchmarks.reports.plots import corruption_plot, severity_plot
from benchmarks.reports.terminal import terminal_table
from benchmarks.reports.text import summary
from benchmarks.reports.verdicts import ALPHA, POWER
from benchmarks.results.card import Card
from benchmarks.results.files import write_text
from benchmarks.tables.published import Published
from benchmarks.tables.table import FULL, Table

__all__ = ["markdown", "terminal_table", "write_report"]

PLOTS = {
    "severity.png": ("Error against severity", severity_plot),
    "corruptions.png": ("Corruption error relative to the baseline row", corruption_plot),
}


def write_report(
    table: Table,
    scale: str,
    seeds: Sequence[int],
    cards: Cards,
    published: Published | None,
    folder: Path,
    command: str,
) -> Path:
    """Write ``folder``/<table with - for />.md, and beside it a folder with its plots and cards; return the
    path.

    ``cards`` maps (panel, row, seed) to the card, or None where the cell was not run. ``command`` is what
    makes the report again. The same arguments give the same bytes.
    """
    evidence = gather(table, scale, seeds, cards, published)
    if not evidence.cards:
        raise UserError(f"no card of {table.name} at {scale} scale; run: {command}")
    slug = table.name.replace("/", "-")
    beside = folder / slug
    (beside / "cards").mkdir(parents=True, exist_ok=True)
    for card in evidence.cards:
        write_text(beside / "cards" / f"{card['id']}.json", card_text(card))
    for name, (_, draw) in PLOTS.items():
        draw(evidence, beside / name)
    path = folder / f"{slug}.md"
    write_text(path, markdown(evidence, slug, command))
    return path


def card_text(card: Card) -> str:
    """A card as it lies beside the report: sorted keys, a line for each part."""
    parts = (f'"{key}": {json.dumps(card[key], sort_keys=True, allow_nan=False)}' for key in sorted(card))
    return "{\n" + ",\n".join(parts) + "\n}\n"


def markdown(evidence: Evidence, slug: str, command: str) -> str:
    """The report's text. ``slug``: the folder beside it that holds plots and cards."""
    digest = hashlib.sha256(json.dumps(evidence.cards, sort_keys=True).encode()).hexdigest()
    panels = evidence.scale.panels
    return template("reports", "table.md.j2").render(
        table=evidence.table,
        scale=evidence.scale,
        full=evidence.scale.name == FULL,
        published=evidence.published,
        seeds=evidence.seeds,
        summary=summary(evidence),
        runs=sections.run_counts(evidence),
        claims=sections.claims(evidence),
        claim_details=sections.claim_details(evidence),
        numbers=[(panel, sections.numbers(evidence, panel, slug)) for panel in panels],
        types=[(panel, sections.by_type(evidence, panel)) for panel in panels],
        measures=[(panel, sections.further_measures(evidence, panel)) for panel in panels],
        costs=[(panel, sections.costs(evidence, panel), sections.sizes(evidence, panel)) for panel in panels],
        printed=sections.printed(evidence),
        test_images=sections.test_sets(evidence),
        unmeasured=sections.unmeasured(evidence),
        margins=[column for column in evidence.table.columns if column.margin is not None],
        provenance=sections.provenance(evidence),
        plots={name: f"{slug}/{name}" for name in PLOTS},
        baseline=evidence.table.row(evidence.table.baseline) if evidence.table.baseline else None,
        digest=digest,
        command=command,
        alpha=ALPHA,
        power=POWER,
    )
