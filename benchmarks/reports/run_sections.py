"""What a report tells of the runs themselves: training, cost and size."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from benchmarks.reports.evidence import Evidence, Sample
from benchmarks.reports.sections import Grid, titled
from benchmarks.reports.text import cost_text, flat, literal, plain, spread_text
from benchmarks.results.card import COUNTED, Card
from benchmarks.tables.table import Panel

MEBI = 2.0**20


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
        row = [titled(line), cost_text(seconds, 3), total, evaluation, peak]
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
                titles += [] if titled(line) in titles else [titled(line)]
    everything = [titled(line) for line in evidence.lines[panel.name] if any(line.cards.values())]
    names = ["all rows" if titles == everything else ", ".join(titles) for titles in rows.values()]
    return Grid(
        [
            "Model size",
            "parameters",
            "MACs",
            "FLOPs",
            "operators not counted",
            "weights (bytes)",
            "DOM saves",
        ],
        [[name, *size] for name, size in zip(names, rows, strict=True)],
    )


def _size(card: Card) -> tuple[str, ...]:
    cost = card["cost"]
    counts = [cost.get(key) for key in ("parameters", "macs", "flops")]
    operators = cost.get("uncounted_operators")
    stored = (card.get("weights") or {}).get("bytes")
    savings = [f"{name.removeprefix('dom_saving_')} {cost[name]:.2f} %" for name in COUNTED if name in cost]
    return (
        *("–" if count is None else f"{count:,}" for count in counts),
        "–" if operators is None else literal(flat(operators)) or "none",
        "–" if stored is None else f"{stored:,}",
        ", ".join(savings) or "–",
    )


def _cost(evidence: Evidence, panel: Panel, row: str) -> Sample:
    return evidence.sample(panel.name, evidence.table.row(row), "cost.seconds_per_epoch")


def _relative(seconds: Sample, base: Sample) -> str:
    ratios = [value / base.values[seed] for seed, value in seconds.values.items() if base.values.get(seed)]
    return f"{plain(fmean(ratios))} ×" if ratios else "–"


def training(evidence: Evidence, panel: Panel) -> Grid:
    """The training curve of every row in one line; where seeds agree, once."""
    rows = []
    for line in evidence.lines[panel.name]:
        curves = [card["curve"] for card in line.cards.values() if card and card["curve"]]
        if not curves:
            continue
        lengths = (_ranges(entry["epoch"] for entry in curve) for curve in curves)
        steps = (_steps([entry["step"] for entry in curve]) for curve in curves)
        rates = (f"{fmean(e['lr'] for e in curve):.4g} ({curve[-1]['lr']:.4g})" for curve in curves)
        rows.append(
            [
                titled(line),
                *("; ".join(dict.fromkeys(texts)) for texts in (lengths, steps, rates)),
                _losses([fmean(entry["loss"] for entry in curve) for curve in curves]),
                _losses([curve[-1]["loss"] for curve in curves]),
            ]
        )
    headings = [
        "",
        "epochs",
        "steps an epoch",
        "learning rate: mean (last)",
        "loss: mean over epochs",
        "last",
    ]
    return Grid(headings, rows)


def _losses(losses: list[float]) -> str:
    return spread_text(Sample(dict(enumerate(losses)), (), ()), 4)


def _steps(ends: list[int]) -> str:
    """How many steps each epoch had, as ranges; the same number everywhere is said once."""
    return _ranges(end - start for start, end in zip([0, *ends], ends, strict=False))


def _ranges(numbers: Iterable[int]) -> str:
    """``1, 2, 3, 7, 7`` as ``1–3, 7``: what runs on or stays is drawn together."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number in (spans[-1][1], spans[-1][1] + 1):
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}–{high}" for low, high in spans)
