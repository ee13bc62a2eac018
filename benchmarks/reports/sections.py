"""The tables of a report, as headings and rows of text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from benchmarks.reports.claim_findings import Compared
from benchmarks.reports.evidence import ClaimFinding, Evidence, Line, Number
from benchmarks.reports.measures import test_images
from benchmarks.reports.text import (
    MARKS,
    claim_evidence,
    cost_text,
    difference_text,
    finding_text,
    interval_text,
    literal,
    p_value,
    prose,
    published_text,
    spread_text,
)
from benchmarks.reports.verdicts import Verdict
from benchmarks.results.card import MEASURED, Card
from benchmarks.tables.table import Panel

OWN = " †"  # marks a row of our own
WIDE = 6
"""A table of more columns is turned where it has fewer rows."""
ATTACK_FACTS = ("n", "epsilon", "steps", "step_size")


@dataclass(frozen=True)
class Grid:
    """A table as text. The first column is a heading of its row."""

    headings: list[str]
    rows: list[list[str]]


def claims(evidence: Evidence) -> Grid:
    """One row for each claim, one column for each panel: verdict, estimate, p."""
    found = {(f.claim.name, f.panel and f.panel.name): f for f in evidence.claims}
    places: dict[str | None, str] = {panel.name: panel.label for panel in evidence.scale.panels}
    if any(f.panel is None for f in evidence.claims):
        places[None] = "together"
    rows = []
    for claim in evidence.table.claims:
        cells = [_claim_cell(found.get((claim.name, place))) for place in places]
        if any(cells):
            rows.append([f"{prose(claim.text)}<br><sub>{prose(claim.source)}</sub>", *cells])
    return Grid(["Claim", *places.values()], rows)


def _claim_cell(this: ClaimFinding | None) -> str:
    if this is None:
        return ""
    numbers = claim_evidence(this)
    if this.finding.corrected_p is not None:
        numbers += f", {p_value(this.finding.corrected_p)}"
    verdict, reason = literal(finding_text(this.finding)), literal(this.finding.reason)
    parts = [f"{MARKS[this.finding.verdict]} {_strong(this.finding.verdict, verdict)}", numbers]
    if reason not in verdict:
        parts.append(reason)
    return "<br>".join(part for part in parts if part != "–")


def claim_details(evidence: Evidence) -> Grid:
    """One row for each claim and panel, with all of its numbers."""
    rows = []
    for this in evidence.claims:
        finding = this.finding
        ps = [p_value(p) for p in (finding.p, finding.corrected_p) if p is not None]
        rows.append(
            [
                f"`{this.claim.name}`",
                this.panel.label if this.panel else "together",
                "<br>".join(f"{literal(side.title)}: {_claim_side(side)}" for side in this.sides),
                claim_evidence(this),
                " → ".join(ps) or "–",
                str(finding.verdict),
                literal(finding.reason) or "–",
            ]
        )
    headings = ["Claim", "Model", "Measured", "Estimate (90 % interval)"]
    return Grid([*headings, "p → Holm", "Verdict", "Note"], rows)


def _claim_side(side: Compared) -> str:
    return cost_text(side.sample) if side.metric.startswith("cost.") else spread_text(side.sample)


def grid(evidence: Evidence, panel: Panel, slug: str) -> Grid:
    """Row by column: measured with the verdict's mark, published below; and the cards of every row.

    A table with many columns is turned, so that its lines are not wider than a page.
    """
    columns, lines = evidence.table.columns, evidence.lines[panel.name]
    cells = [[*map(_grid_cell, line.numbers), _epochs(line), _card_links(line, slug)] for line in lines]
    across = [*(f"{prose(column.label)} ({column.unit})" for column in columns), "epochs", "cards by seed"]
    down = [titled(line) for line in lines]
    if len(columns) > WIDE and len(columns) > len(lines):
        across, down, cells = down, across, [list(turned) for turned in zip(*cells, strict=True)]
    return Grid(["", *across], [[name, *row] for name, row in zip(down, cells, strict=True)])


def given(evidence: Evidence) -> set[Verdict]:
    """The verdicts in the grids, those on rows of our own too."""
    return {n.finding.verdict for lines in evidence.lines.values() for line in lines for n in line.numbers}


def _grid_cell(number: Number) -> str:
    measured = f"{spread_text(number.sample, number.column.digits)} {MARKS[number.finding.verdict]}"
    printed = published_text(number)
    return measured if printed == "–" else f"{measured}<br><sub>published {printed}</sub>"


def numbers(evidence: Evidence, panel: Panel) -> Grid:
    """A line for each row and column: published, measured, difference, its interval, the verdict and its reason."""
    rows = []
    for line in evidence.lines[panel.name]:
        for number in line.numbers:
            verdict = literal(finding_text(number.finding))
            reason = literal(number.finding.reason)
            rows.append(
                [
                    titled(line),
                    f"{prose(number.column.label)} ({number.column.unit})",
                    published_text(number),
                    spread_text(number.sample, number.column.digits),
                    difference_text(number),
                    interval_text(number),
                    f"{MARKS[number.finding.verdict]} {verdict}",
                    reason if reason and reason not in verdict else "",
                ]
            )
    headings = ["Row", "Column", "published", "measured", "difference", "90 % interval", "verdict", "note"]
    return Grid(headings, rows)


def titled(line: Line) -> str:
    """The row's label and epochs, marked if it is not in the paper."""
    return literal(line.row.title) + ("" if line.row.published else OWN)


def _epochs(line: Line) -> str:
    """The row's epochs as the table names them, and how many they were."""
    counts = {len(card["curve"]) for card in line.cards.values() if card and card["status"] == "finished"}
    measured = " or ".join(map(str, sorted(counts)))
    return " = ".join(part for part in (line.row.epochs, measured) if part)


def _card_links(line: Line, slug: str) -> str:
    links = []
    for seed, card in line.cards.items():
        if card is None:
            links.append(f"{seed} NOT RUN")
        else:
            links.append(f"[{seed}]({slug}/cards/{card['id']}.json){_divergence(card)}")
    return ", ".join(links)


def _divergence(card: Card) -> str:
    """Where a run diverged; empty where it did not."""
    if card["status"] != "diverged":
        return ""
    at = card["diverged_at"] or {}
    return " diverged" + (
        f" (epoch {at['epoch']}, step {at['step']})" if {"epoch", "step"} <= at.keys() else ""
    )


def by_type(evidence: Evidence, panel: Panel) -> Grid:
    """Error of every row on every corruption type, mean over severities and seeds."""
    lines = evidence.lines[panel.name]
    types = evidence.corruption_types(panel.name)
    rows = []
    for line in lines:
        samples = [evidence.sample(panel.name, line.row, f"type.{name}.error") for name in types]
        rows.append([titled(line), *(spread_text(sample, 1) for sample in samples)])
    return Grid(["Error (%)", *(name.replace("_", " ") for name in types)], rows)


def further_measures(evidence: Evidence, panel: Panel) -> Grid:
    """Top-3 error, negative log-likelihood, calibration error; all that was measured of attacks and shifted images."""
    rows = []
    for metric, heading, digits in _further(evidence, panel):
        samples = [evidence.sample(panel.name, line.row, metric) for line in evidence.lines[panel.name]]
        rows.append([heading, *(spread_text(sample, digits) for sample in samples)])
    return Grid(["", *(titled(line) for line in evidence.lines[panel.name])], rows)


def _further(evidence: Evidence, panel: Panel) -> list[tuple[str, str, int]]:
    """Metric, heading, digits."""
    labels = {
        "error": "error (%)",
        "top3_error": "top-3 error (%)",
        "nll": "NLL (nats)",
        "ece": "ECE (fraction)",
    }
    found = [(f"{where}.{key}", where, key) for where in ("clean", "corrupted") for key in MEASURED[1:]]
    special: dict[str, tuple[str, str]] = {}
    for line in evidence.lines[panel.name]:
        for card in line.cards.values():
            of = ((card or {}).get("metrics") or {}).get(line.row.mode, {})
            for name, values in of.get("attacks", {}).items():
                facts = ", ".join(
                    f"{key} {values[key]:g}" for key in ATTACK_FACTS if values.get(key) is not None
                )
                special |= {f"attack.{name}.{key}": (f"{name} ({facts})", key) for key in MEASURED}
            for name, values in of.get("shifted", {}).items():
                told = f"{name} ({values['n']:,} images)"
                special |= {f"shifted.{name}.{key}": (told, key) for key in MEASURED if key in values}
    found += [(metric, where, key) for metric, (where, key) in special.items()]
    return [
        (metric, f"{literal(where)}: {labels[key]}", 3 if key == "ece" else 2) for metric, where, key in found
    ]


def printed(evidence: Evidence) -> Grid | None:
    """The published table, whole."""
    published = evidence.published
    if published is None:
        return None
    rows = []
    for row in published.rows.values():
        cells = []
        for key, column in published.columns.items():
            value = row.values[key]
            cells.append("–" if value.value is None else column.show(value.value))
        rows.append([literal(row.label), str(row.epochs or ""), *cells])
    headings = [
        column.label + (f" ({column.unit})" if column.unit != "%" else "")
        for column in published.columns.values()
    ]
    return Grid(["Error (%)", "Epochs", *headings], rows)


def test_sets(evidence: Evidence) -> str:
    """How many clean test images the cards were evaluated on."""
    counts = {test_images(card, mode) for card in evidence.cards for mode in card["metrics"] or ()}
    return " or ".join(f"{count:,}" for count in sorted(count for count in counts if count is not None))


def unmeasured(evidence: Evidence) -> list[str]:
    """The published columns that the table does not measure."""
    if evidence.published is None:
        return []
    measured = {column.published or column.name for column in evidence.table.columns}
    return [column.label for key, column in evidence.published.columns.items() if key not in measured]


def run_counts(evidence: Evidence) -> str:
    """How many runs there are, and how many of them diverged or are missing."""
    statuses = Counter(card["status"] for card in evidence.cards)
    parts = [f"{statuses['finished']} runs finished"]
    if statuses["diverged"]:
        parts.append(f"{statuses['diverged']} diverged")
    if missing := evidence.missing:
        parts.append(f"{missing} {Verdict.NOT_RUN}")
    return ", ".join(parts)


def _strong(verdict: Verdict, text: str) -> str:
    return f"**{text}**" if verdict in (Verdict.REPRODUCED, Verdict.DIFFERENT) else text
