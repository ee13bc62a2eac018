"""Which plots a report has: those that its cards have numbers for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reports.evidence import Evidence
from benchmarks.reports.heat_maps import corruption_plot, published_ratios
from benchmarks.reports.plots import severity_plot
from benchmarks.reports.run_plots import SECONDS, cost_plot, curve_plot, losses, work, work_plot
from benchmarks.reports.text import literal


@dataclass(frozen=True)
class Plot:
    """A plot of a report: its file beside the report, what it shows, and how it is drawn."""

    file: str
    heading: str
    caption: str
    draw: Callable[[Evidence, Path], None]


def plots_of(evidence: Evidence) -> list[Plot]:
    """The plots that there are numbers for."""
    lines = [(panel, line) for panel, of_panel in evidence.lines.items() for line in of_panel]
    corrupted = any(of["corrupted"] for card in evidence.cards for of in (card["metrics"] or {}).values())
    found = []
    if corrupted:
        caption = "Mean over corruption types; bars are 95 % intervals over seeds."
        found.append(Plot("severity.png", "Error against severity of the corruption", caption, severity_plot))
    if corrupted and evidence.table.baseline is not None:
        found.append(_heat_map(evidence, literal(evidence.table.row(evidence.table.baseline).title)))
    if any(len(losses(list(line.cards.values()))) > 1 for _, line in lines):
        caption = "Mean over seeds; the band reaches from the lowest seed to the highest.."
        found.append(Plot("curves.png", "Training curves", caption, curve_plot))
    if sum(bool(evidence.sample(panel, line.row, SECONDS).values) for panel, line in lines) > 1:
        caption = "Mean over seeds; the thin line reaches from the lowest seed to the highest. Pale: rows of our own."
        found.append(Plot("cost.png", "Training time", caption, cost_plot))
    if any(len(_works(evidence, panel)) > 1 for panel in evidence.lines):
        caption = (
            "Multiply-adds of a forward pass; with shadow weights (DOM) those expected without the zeros."
        )
        found.append(Plot("work.png", "Clean error against multiply-adds", caption, work_plot))
    return found


def _works(evidence: Evidence, panel: str) -> set[float | None]:
    """The different amounts of work of the rows that have an error."""
    lines = evidence.lines[panel]
    return {work(line) for line in lines if evidence.sample(panel, line.row, "clean.error").values}


def _heat_map(evidence: Evidence, baseline: str) -> Plot:
    printed = any(
        ratios
        for panel in evidence.scale.panels
        for ratios in published_ratios(evidence, panel.name).values()
    )
    caption = (
        f"Error summed over severities, divided by that of {baseline}: below 1 is better than {baseline}."
    )
    small = " Small digits: published." if printed else ""
    return Plot(
        "corruptions.png",
        f"Error by corruption type, relative to {baseline}",
        caption + small,
        corruption_plot,
    )
