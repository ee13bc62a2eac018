"""A table's report: Markdown, a page of it, plots and the cards it was made from, so that it can be made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.errors import UserError
from benchmarks.markdown import template
from benchmarks.reports import headline, origin, run_sections, sections
from benchmarks.reports.evidence import Cards, Evidence, gather
from benchmarks.reports.html import page
from benchmarks.reports.index import SUMMARY, summary
from benchmarks.reports.plot_set import plots_of
from benchmarks.reports.terminal import terminal_table
from benchmarks.reports.text import MARKS, literal, prose
from benchmarks.reports.verdicts import ALPHA, POWER
from benchmarks.results.card import Card
from benchmarks.results.files import write_json, write_text
from benchmarks.tables.published import Published
from benchmarks.tables.table import FULL, Table

__all__ = ["markdown", "terminal_table", "write_report"]


def write_report(
    table: Table,
    scale: str,
    seeds: Sequence[int],
    cards: Cards,
    published: Published | None,
    folder: Path,
    command: str,
) -> Path:
    """Write ``folder``/<table with - for />.md and .html, and beside them a folder with plots, cards and a summary.

    ``cards`` maps (panel, row, seed) to the card, or None where the cell was not run. ``command`` is what
    makes the report again. The same arguments give the same bytes. Returns the Markdown's path.
    """
    evidence = gather(table, scale, seeds, cards, published)
    if not evidence.cards:
        raise UserError(f"no card of {table.name} at {scale} scale; run: {command}")
    slug = table.name.replace("/", "-")
    beside = folder / slug
    (beside / "cards").mkdir(parents=True, exist_ok=True)
    texts = {card["id"]: card_text(card) for card in evidence.cards}
    for card_id, content in texts.items():
        _copy(content, beside / "cards" / f"{card_id}.json")
    plots = plots_of(evidence)
    for old in beside.glob("*.png"):
        if old.name not in {plot.file for plot in plots}:
            old.unlink()
    for plot in plots:
        plot.draw(evidence, beside / plot.file)
    write_json(beside / SUMMARY, summary(evidence))
    path = folder / f"{slug}.md"
    text = markdown(evidence, slug, command, digest(texts.values()))
    write_text(path, text)
    write_text(path.with_suffix(".html"), page(text))
    return path


def _copy(text: str, path: Path) -> None:
    """A card beside the report. It can be made again, so nothing waits for the disk; one that is there stays."""
    if not path.is_file() or path.read_text("utf-8") != text:
        path.write_text(text, encoding="utf-8")


def card_text(card: Card) -> str:
    """A card as it lies beside the report: sorted keys, a line for each part."""
    parts = (f'"{key}": {json.dumps(card[key], sort_keys=True, allow_nan=False)}' for key in sorted(card))
    return "{\n" + ",\n".join(parts) + "\n}\n"


def digest(texts: Iterable[str]) -> str:
    """What tells these cards, as :func:`card_text` writes them, from all others."""
    return hashlib.sha256("".join(texts).encode()).hexdigest()


def markdown(evidence: Evidence, slug: str, command: str, digest: str) -> str:
    """The report's text. ``slug``: the folder beside it that holds plots and cards."""
    table, scale = evidence.table, evidence.scale
    panels = scale.panels
    margins = [column for column in table.columns if column.margin is not None]
    corrupted = any(of["corrupted"] for card in evidence.cards for of in (card["metrics"] or {}).values())
    cards = f"reports/{scale.name}/{slug}/cards"
    return template("reports", "table.md.j2").render(
        title=prose(table.title),
        about=prose(scale.about),
        table=table,
        scale=scale,
        full=scale.name == FULL,
        published=evidence.published,
        seeds=evidence.seeds,
        sentence=headline.sentence(evidence),
        counts=headline.verdict_counts(evidence),
        unknown=headline.unknown(evidence),
        marks={verdict: mark for verdict, mark in MARKS.items() if verdict in sections.given(evidence)},
        claims=sections.claims(evidence),
        claim_details=sections.claim_details(evidence),
        numbers=[
            (panel, sections.grid(evidence, panel, slug), sections.numbers(evidence, panel))
            for panel in panels
        ],
        plots=plots_of(evidence),
        slug=slug,
        types=[(panel, sections.by_type(evidence, panel)) for panel in panels] if corrupted else [],
        measures=[(panel, sections.further_measures(evidence, panel)) for panel in panels],
        training=[(panel, run_sections.training(evidence, panel)) for panel in panels],
        costs=[
            (panel, run_sections.costs(evidence, panel), run_sections.sizes(evidence, panel))
            for panel in panels
        ],
        printed=sections.printed(evidence),
        test_images=sections.test_sets(evidence),
        unmeasured=sections.unmeasured(evidence),
        margins=", ".join(f"{column.label} ±{column.margin} {column.unit}" for column in margins),
        deviations=origin.deviations(evidence),
        provenance=origin.provenance(evidence),
        baseline=literal(table.row(table.baseline).title) if table.baseline else None,
        digest=digest,
        command=command,
        from_cards=f"{command.replace('weightaug reproduce', 'weightaug report', 1)} --cards {cards}",
        alpha=ALPHA,
        power=POWER,
    )
