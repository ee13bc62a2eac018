"""The tables of a report, as headings and rows of text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import fmean

from benchmarks.reports.claim_findings import Side
from benchmarks.reports.evidence import ClaimFinding, Evidence, Line, Sample
from benchmarks.reports.measures import test_images
from benchmarks.reports.text import (
    claim_evidence,
    cost_text,
    difference_text,
    finding_text,
    flat,
    p_value,
    plain,
    published_text,
    row_verdict,
    spread_text,
)
from benchmarks.reports.verdicts import Verdict
from benchmarks.results.card import MEASURED, Card
from benchmarks.tables.table import Panel

OWN = " †"  # marks a row of our own
MEBI = 2.0**20


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
            rows.append([f"{claim.text}<br><sub>{claim.source}</sub>", *cells])
    return Grid(["Claim", *places.values()], rows)


def _claim_cell(this: ClaimFinding | None) -> str:
    if this is None:
        return ""
    numbers = claim_evidence(this)
    if this.finding.corrected_p is not None:
        numbers += f", {p_value(this.finding.corrected_p)}"
    parts = [_strong(this.finding.verdict, finding_text(this.finding)), numbers]
    if this.finding.reason not in parts[0]:
        parts.append(this.finding.reason)
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
                "<br>".join(f"{side.title}: {_claim_side(side)}" for side in this.sides),
                claim_evidence(this),
                " → ".join(ps) or "–",
                str(finding.verdict),
                finding.reason or "–",
            ]
        )
    headings = ["Claim", "Model", "Measured", "Estimate (90 % interval)"]
    return Grid([*headings, "p → Holm", "Verdict", "Note"], rows)


def _claim_side(side: Side) -> str:
    return cost_text(side.sample) if side.metric.startswith("cost.") else spread_text(side.sample)


def numbers(evidence: Evidence, panel: Panel, slug: str) -> Grid:
    """Published, measured and difference of every column, the verdict, and links to the cards by seed."""
    headings = ["", "Epochs"]
    for column in evidence.table.columns:
        headings += [f"{column.label} ({column.unit})<br>published", "measured", "difference"]
    rows = []
    for line in evidence.lines[panel.name]:
        cells = [title(line), _epochs(line)]
        for number in line.numbers:
            measured = spread_text(number.sample, number.column.digits)
            cells += [published_text(number), measured, difference_text(number)]
        rows.append([*cells, row_verdict(line.numbers), _card_links(line, slug)])
    return Grid([*headings, "Verdict", "Seeds"], rows)


def title(line: Line) -> str:
    """The row's label, marked if it is not in the paper."""
    return line.row.label + ("" if line.row.published else OWN)


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
            links.append(f"[{seed}]({slug}/cards/{card['id']}.json)")
            links[-1] += " diverged" if card["status"] == "diverged" else ""
    return ", ".join(links)


def by_type(evidence: Evidence, panel: Panel) -> Grid:
    """Error of every row on every corruption type, mean over severities and seeds."""
    lines = evidence.lines[panel.name]
    types = evidence.corruption_types(panel.name)
    rows = []
    for line in lines:
        samples = [evidence.sample(panel.name, line.row, f"type.{name}.error") for name in types]
        rows.append([_titled(line), *(spread_text(sample, 1) for sample in samples)])
    return Grid(["Error (%)", *(name.replace("_", " ") for name in types)], rows)


def further_measures(evidence: Evidence, panel: Panel) -> Grid:
    """Top-3 error, negative log-likelihood and calibration error, on clean and corrupted inputs."""
    labels = {"top3_error": "top-3 error (%)", "nll": "NLL (nats)", "ece": "ECE (fraction)"}
    metrics = {f"{where}.{key}": key for where in ("clean", "corrupted") for key in MEASURED if key in labels}
    rows = []
    for line in evidence.lines[panel.name]:
        samples = [(evidence.sample(panel.name, line.row, metric), key) for metric, key in metrics.items()]
        rows.append(
            [_titled(line), *(spread_text(sample, 3 if key == "ece" else 2) for sample, key in samples)]
        )
    headings = [f"{metric.split('.')[0]}<br>{labels[key]}" for metric, key in metrics.items()]
    return Grid(["", *headings], rows)


def costs(evidence: Evidence, panel: Panel) -> Grid:
    """What training cost, in seconds and relative to the baseline row, and the size of the model."""
    baseline = evidence.table.baseline
    base = None if baseline is None else _cost(evidence, panel, evidence.table.row(baseline).name)
    rows = []
    for line in evidence.lines[panel.name]:
        seconds = _cost(evidence, panel, line.row.name)
        memory = evidence.sample(panel.name, line.row, "cost.peak_memory_bytes")
        peak = plain(max(memory.values.values()) / MEBI, 0) if memory.values else "–"
        total = cost_text(evidence.sample(panel.name, line.row, "cost.training_seconds"), 1)
        evaluation = cost_text(evidence.sample(panel.name, line.row, "cost.evaluation_seconds"), 1)
        row = [_titled(line), cost_text(seconds, 3), total, evaluation, peak]
        if base is not None:
            row.insert(2, _relative(seconds, base))
        rows.append(row)
    headings = ["", "s / epoch", "training (s)", "evaluation (s)", "peak memory (MiB)"]
    if base is not None:
        headings.insert(2, "relative")
    return Grid(headings, rows)


def sizes(evidence: Evidence, panel: Panel) -> Grid:
    """Parameters, MACs and FLOPs of one forward pass; one row for each distinct size."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for line in evidence.lines[panel.name]:
        for card in line.cards.values():
            if card is not None:
                titles = rows.setdefault(_size(card), [])
                titles += [] if _titled(line) in titles else [_titled(line)]
    everything = [_titled(line) for line in evidence.lines[panel.name] if any(line.cards.values())]
    names = ["all rows" if titles == everything else ", ".join(titles) for titles in rows.values()]
    return Grid(
        ["Model size", "parameters", "MACs", "FLOPs", "operators not counted"],
        [[name, *size] for name, size in zip(names, rows, strict=True)],
    )


def _size(card: Card) -> tuple[str, ...]:
    cost = card["cost"]
    counts = [cost.get(key) for key in ("parameters", "macs", "flops")]
    operators = cost.get("uncounted_operators")
    return (
        *("–" if count is None else f"{count:,}" for count in counts),
        "–" if operators is None else flat(operators) or "none",
    )


def _cost(evidence: Evidence, panel: Panel, row: str) -> Sample:
    return evidence.sample(panel.name, evidence.table.row(row), "cost.seconds_per_epoch")


def _relative(seconds: Sample, base: Sample) -> str:
    ratios = [value / base.values[seed] for seed, value in seconds.values.items() if base.values.get(seed)]
    return f"{plain(fmean(ratios))} ×" if ratios else "–"


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
        rows.append([row.label, str(row.epochs or ""), *cells])
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


def provenance(evidence: Evidence) -> Grid:
    """What the cards say of where they come from; one row for each distinct value."""
    sources = [card["provenance"] for card in evidence.cards]
    rows = []
    for key in ("commit", "hardware", "device", "threads", "versions", "command"):
        texts = Counter(_origin(source, key) for source in sources)
        for text, count in texts.items():
            rows.append([key, f"{text}{f' ({count} of {len(sources)} cards)' if len(texts) > 1 else ''}"])
    resumed = sum(card["cost"].get("resumed") or 0 for card in evidence.cards)
    if resumed:
        rows.append(["continued", f"{resumed} times from a checkpoint"])
    started, finished = (sorted(s[key] for s in sources if s.get(key)) for key in ("started", "finished"))
    if started and finished:
        rows.append(["trained", f"from {started[0]} to {finished[-1]}"])
    return Grid(["", ""], rows)


def _origin(source: dict[str, object], key: str) -> str:
    text = flat(source.get(key, "not recorded"))
    return f"{text}, with uncommitted changes" if key == "commit" and source.get("dirty") else text


def _titled(line: Line) -> str:
    return line.row.title + ("" if line.row.published else OWN)


def _strong(verdict: Verdict, text: str) -> str:
    return f"**{text}**" if verdict in (Verdict.REPRODUCED, Verdict.DIFFERENT) else text
