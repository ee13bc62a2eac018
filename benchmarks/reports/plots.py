"""The report's plots, readable on a light and on a dark page and by the colour-blind.

Colours are those of Okabe and Ito without black and yellow, which vanish on one of the two pages, and never
the only difference: every row has its marker. The background is transparent, the ink a grey that stands out
from both pages. The same evidence gives the same bytes.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image
from scipy import stats

from benchmarks.reports.measures import SEVERITIES
from benchmarks.tables.table import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmarks.reports.evidence import Evidence, Line, Sample

COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # one more than colours: 56 rows differ
INK = "#808080"
ONE_COLUMN = 3  # so many panels stand one below the other; more of them, in two columns
DOTS = 150  # per inch
WIDTH = 8.0  # inches: more dots than the 800 pixels that a page shows
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "figure.dpi": DOTS,
}


def severity_plot(evidence: Evidence, path: Path) -> None:
    """Error against severity, 0 being the clean inputs: mean and 95 % interval over seeds, by model."""
    styles = row_styles(evidence.table)
    with panel_figure(evidence, path, 2.9) as (figure, axes):
        handles: dict[str, Any] = {}
        for panel, axis in axes.items():
            lines = evidence.lines[panel]
            for index, line in enumerate(lines):
                shift = 0.5 * ((index + 0.5) / len(lines) - 0.5)
                drawn = _severity_line(axis, evidence, panel, line, shift, styles[line.row.name])
                handles.setdefault(line.row.title, drawn)
            axis.set_ylim(bottom=0)
            axis.set_xticks([0, *SEVERITIES], ["clean", *map(str, SEVERITIES)])
        label_axes(figure, handles, "severity of the corruption", "error (%)")


@contextmanager
def panel_figure(evidence: Evidence, path: Path, height: float) -> Iterator[tuple[Figure, dict[str, Axes]]]:
    """A figure with axes for each panel of the table, in two columns where there are many.

    Args:
        height: of one of them, in inches.
    """
    panels = evidence.scale.panels
    columns = 1 if len(panels) <= ONE_COLUMN else 2
    rows = -(-len(panels) // columns)
    height = height if columns == 1 else 0.85 * height
    with report_figure(path, height * rows + 0.8) as figure:
        cells = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
        for spare in cells[len(panels) :]:
            spare.set_visible(False)
        if len(cells) > len(panels):  # what stands above the gap has the ticks of the bottom
            cells[-1 - columns].tick_params(labelbottom=True)
        axes = dict(zip([panel.name for panel in panels], cells, strict=False))
        for panel in panels:
            axes[panel.name].set_title(
                panel_title(panel.label, evidence.lines[panel.name], columns), loc="left"
            )
            axes[panel.name].grid(axis="y")
        yield figure, axes


def label_axes(figure: Figure, handles: dict[str, Any], x: str, y: str) -> None:
    """What the axes show, at the left and at the bottom, and which row is which."""
    for axis in figure.axes:
        place = axis.get_subplotspec()
        if place is not None and place.is_first_col():
            axis.set_ylabel(y)
        if place is not None and place.is_last_row():
            axis.set_xlabel(x)
    if handles:
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=_legend_columns(handles)
        )


def _legend_columns(handles: dict[str, Any]) -> int:
    """As many as the widest entry lets stand side by side."""
    widest = max(len(title) for title in handles)
    return max(1, min(5, len(handles), 100 // (widest + 8)))


def _severity_line(
    axis: Axes, evidence: Evidence, panel: str, line: Line, shift: float, style: dict[str, Any]
) -> Any:
    levels, means, halves = [], [], []
    for severity in (0, *SEVERITIES):
        sample = evidence.sample(panel, line.row, f"severity.{severity}.error")
        if sample.mean is not None:
            levels.append(severity + shift)
            means.append(sample.mean)
            halves.append(half_interval(sample))
    return axis.errorbar(
        levels, means, halves if any(halves) else None, capsize=1.5, elinewidth=0.8, linewidth=1.3, **style
    )


def half_interval(sample: Sample) -> float:
    """Half the 95 % t interval of the mean; 0 where a single run has none."""
    if sample.spread is None:
        return 0.0
    runs = len(sample.values)
    return float(stats.t.ppf(0.975, runs - 1)) * sample.spread / math.sqrt(runs)


def row_styles(table: Table) -> dict[str, dict[str, Any]]:
    """Row name -> style: a colour and a marker for each label; dashed and hollow where it comes again."""
    labels = list(dict.fromkeys(row.label for row in table.rows))
    styles, seen = {}, set[str]()
    for row in table.rows:
        kind = labels.index(row.label)
        style: dict[str, Any] = {
            "color": COLOURS[kind % len(COLOURS)],
            "marker": MARKERS[kind % len(MARKERS)],
            "markersize": 4.5,
        }
        if row.label in seen:
            style |= {"linestyle": "--", "markerfacecolor": "none"}
        seen.add(row.label)
        styles[row.name] = style
    return styles


def panel_title(label: str, lines: tuple[Line, ...], columns: int = 1) -> str:
    """The model, and which rows lack runs, so that a line over fewer seeds is not taken for a whole one."""

    def lacking(row: Row, count: int, total: int, word: str) -> str:
        return f"{row.title}: {count} of {total} {word}"

    notes = []
    for line in lines:
        cards, total = [card for card in line.cards.values() if card], len(line.cards)
        diverged = sum(card["status"] == "diverged" for card in cards)
        if diverged:
            notes.append(lacking(line.row, diverged, total, "diverged"))
        if len(cards) < total:
            notes.append(lacking(line.row, total - len(cards), total, "not run"))
    text = f"{label} ({'; '.join(notes)})" if notes else label
    return "\n".join(textwrap.wrap(text, 96 // columns))


@contextmanager
def report_figure(path: Path, height: float) -> Iterator[Figure]:
    """A figure in the report's style, written to ``path`` at the end, without a date or a version in it."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever style the caller's settings ask for
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(h_pad=0.08))
        yield figure
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # savefig would draw all twice
        Image.fromarray(np.asarray(canvas.buffer_rgba())).save(path, format="png", dpi=(DOTS, DOTS))
