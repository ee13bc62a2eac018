"""Plots of the runs themselves: training curves, cost, and error against the work of a forward pass."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from benchmarks.reports.plots import COLOURS, INK, label_axes, panel_figure, report_figure, row_styles
from benchmarks.reports.samples import Sample, combine
from benchmarks.results.card import Card

if TYPE_CHECKING:
    from benchmarks.reports.evidence import Evidence, Line

SECONDS = "cost.seconds_per_epoch"


def curve_plot(evidence: Evidence, path: Path) -> None:
    """Mean training loss by epoch; the band reaches from the lowest seed to the highest."""
    styles = row_styles(evidence.table)
    with panel_figure(evidence, path, 2.6) as (figure, axes):
        handles: dict[str, Any] = {}
        for panel, axis in axes.items():
            for card_set in _distinct(evidence.lines[panel]):
                by_epoch = losses(list(card_set.cards.values()))
                if not by_epoch:
                    continue
                style = styles[card_set.row.name] | {
                    "markersize": 3,
                    "markevery": max(1, len(by_epoch) // 10),
                }
                means = [fmean(values) for values in by_epoch.values()]
                (drawn,) = axis.plot(list(by_epoch), means, linewidth=1.3, **style)
                low, high = map(min, by_epoch.values()), map(max, by_epoch.values())
                axis.fill_between(
                    list(by_epoch), list(low), list(high), color=style["color"], alpha=0.2, linewidth=0
                )
                handles.setdefault(card_set.row.title, drawn)
            axis.set_ylim(bottom=0)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        label_axes(figure, handles, "epoch", "training loss")


def _distinct(lines: tuple[Line, ...]) -> list[Line]:
    """Rows that show the same runs in another way, such as AOM and DOM, have one curve: the first one's."""
    seen: dict[tuple[str, ...], Line] = {}
    for line in lines:
        seen.setdefault(tuple(card["id"] for card in line.cards.values() if card), line)
    return list(seen.values())


def losses(cards: list[Card | None]) -> dict[int, list[float]]:
    """Epoch -> the loss of every seed that came so far."""
    found: dict[int, list[float]] = {}
    for card in cards:
        for entry in card["curve"] if card else ():
            found.setdefault(entry["epoch"], []).append(entry["loss"])
    return dict(sorted(found.items()))


def relative_cost(evidence: Evidence, panel: str, line: Line) -> Sample:
    """Seconds per epoch divided by the baseline's, seed by seed; where there is no baseline, the seconds."""
    own = evidence.sample(panel, line.row, SECONDS)
    if evidence.table.baseline is None:
        return own
    base = evidence.sample(panel, evidence.table.row(evidence.table.baseline), SECONDS)
    return combine([own, base], lambda sides: sides[0] / sides[1] if sides[1] > 0 else None)


def cost_plot(evidence: Evidence, path: Path) -> None:
    """Bars of the seconds per epoch relative to the baseline row, lowest and highest seed as a thin line."""
    rows, panels = len(evidence.table.rows), len(evidence.scale.panels)
    baseline = evidence.table.row(evidence.table.baseline) if evidence.table.baseline else None
    with panel_figure(evidence, path, 0.2 * rows + 0.55 + 0.3 / panels) as (figure, axes):
        for panel, axis in axes.items():
            lines = evidence.lines[panel]
            for place, line in enumerate(lines):
                sample = relative_cost(evidence, panel, line)
                if sample.mean is None:
                    axis.text(0, place, " not run", va="center", fontsize=8)
                    continue
                axis.barh(
                    place, sample.mean, height=0.7, color=COLOURS[3] if line.row.published else COLOURS[1]
                )
                low, high = min(sample.values.values()), max(sample.values.values())
                axis.plot([low, high], [place, place], color=INK, linewidth=1.2, marker="|", markersize=4)
                text = f"{sample.mean:.2f} ×" if baseline else f"{sample.mean:.3g} s"
                axis.text(high, place, f"  {text}", va="center", fontsize=8, in_layout=False)
            axis.set_yticks(range(rows), [line.row.title for line in lines], fontsize=8)
            axis.set_ylim(rows - 0.5, -0.5)
            axis.grid(False)
            axis.margins(x=0.12)
        divided = f", divided by those of {baseline.title}" if baseline else ""
        label_axes(figure, {}, "seconds per epoch" + divided, "")


def work(line: Line) -> float | None:
    """MACs of one image's forward pass; with shadow weights as expected once their zeros are left out."""
    for card in line.cards.values():
        if card is not None:
            saved = card["cost"].get("dom_saving_expected", 0.0) if line.row.mode == "shadow" else 0.0
            return float(card["cost"]["macs"]) * (1 - saved / 100)
    return None


def work_plot(evidence: Evidence, path: Path) -> None:
    """Clean error against MACs: a marker for each row, and the rows of one panel joined by a thin line."""
    styles = row_styles(evidence.table)
    with report_figure(path, 4.2) as figure:
        axis = figure.subplots()
        handles: dict[str, Any] = {}
        for panel in evidence.scale.panels:
            points = []
            for line in evidence.lines[panel.name]:
                error, macs = evidence.sample(panel.name, line.row, "clean.error").mean, work(line)
                if error is None or macs is None:
                    continue
                (drawn,) = axis.plot(macs / 1e6, error, linestyle="none", **_marker(styles[line.row.name]))
                handles.setdefault(line.row.title, drawn)
                points.append((macs / 1e6, error))
            if points:
                points.sort()
                axis.plot(*zip(*points, strict=True), color=INK, linewidth=0.6, zorder=0)
                lowest = min(points, key=lambda point: point[1])
                axis.annotate(
                    panel.label, lowest, (0, -11), textcoords="offset points", fontsize=7, ha="center"
                )
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.margins(0.08, 0.12)
        axis.grid(True)
        label_axes(figure, handles, "million MACs of one image", "clean error (%)")


def _marker(style: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in style.items() if key != "linestyle"}
