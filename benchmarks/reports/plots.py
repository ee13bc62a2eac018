"""The report's plots, readable on a light and on a dark page and by the colour-blind.

Colours are those of Okabe and Ito without black and yellow, which vanish on one of the two pages, and never
the only difference: every row has its marker. The background is transparent, the ink a grey that stands out
from both pages. The same evidence gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from scipy import stats

from benchmarks.reports import aggregates
from benchmarks.reports.aggregates import CLEAN
from benchmarks.reports.measures import SEVERITIES
from benchmarks.tables.table import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmarks.reports.evidence import Evidence, Line, Sample

COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # one more than colours: 56 rows differ
INK = "#808080"
STRONGEST = 2.5  # the ratio (or its inverse) that has the darkest colour in a heat map
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
WIDTH = 8.0  # inches; at 150 dots per inch more than the 800 pixels that a page shows
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
    "savefig.transparent": True,
    "savefig.dpi": 150,
}


def severity_plot(evidence: Evidence, path: Path) -> None:
    """Error against severity, 0 being the clean inputs: mean and 95 % interval over seeds, by model."""
    panels = evidence.scale.panels
    styles = _styles(evidence.table)
    with report_figure(path, 2.9 * len(panels) + 0.8) as figure:
        axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
        handles: dict[str, Any] = {}
        for axis, panel in zip(axes, panels, strict=True):
            lines = evidence.lines[panel.name]
            for index, line in enumerate(lines):
                shift = 0.5 * ((index + 0.5) / len(lines) - 0.5)
                drawn = _severity_line(axis, evidence, panel.name, line, shift, styles[line.row.name])
                handles.setdefault(line.row.title, drawn)
            axis.set_title(_panel_title(panel.label, lines), loc="left")
            axis.set_ylabel("error (%)")
            axis.set_ylim(bottom=0)
            axis.grid(axis="y")
        axes[-1].set_xticks([0, *SEVERITIES], ["clean", *map(str, SEVERITIES)])
        axes[-1].set_xlabel("severity of the corruption")
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5)


def _severity_line(
    axis: Axes, evidence: Evidence, panel: str, line: Line, shift: float, style: dict[str, Any]
) -> Any:
    levels, means, halves = [], [], []
    for severity in (0, *SEVERITIES):
        sample = evidence.sample(panel, line.row, f"severity.{severity}.error")
        if sample.mean is not None:
            levels.append(severity + shift)
            means.append(sample.mean)
            halves.append(_half_interval(sample))
    return axis.errorbar(
        levels, means, halves if any(halves) else None, capsize=1.5, elinewidth=0.8, linewidth=1.3, **style
    )


def _half_interval(sample: Sample) -> float:
    """Half the 95 % t interval of the mean; 0 where a single run has none."""
    if sample.spread is None:
        return 0.0
    runs = len(sample.values)
    return float(stats.t.ppf(0.975, runs - 1)) * sample.spread / math.sqrt(runs)


def corruption_plot(evidence: Evidence, path: Path) -> None:
    """Heat maps of the corruption error, the sum of errors over severities relative to the baseline row's."""
    tables = {
        _panel_title(panel.label, evidence.lines[panel.name]): corruption_errors(evidence, panel.name)
        for panel in evidence.scale.panels
    }
    height = sum(0.27 * len(table) + 0.7 for table in tables.values()) + 0.2
    with report_figure(path, height) as figure:
        axes = figure.subplots(len(tables), 1, squeeze=False)
        for axis, (label, table) in zip(axes[:, 0], tables.items(), strict=True):
            _heat_map(axis, table)
            axis.set_title(label, loc="left")


def corruption_errors(evidence: Evidence, panel: str) -> dict[str, dict[str, float]]:
    """Row title -> corruption type (and clean) -> error relative to the baseline row, ratio of means over
    seeds.

    DAMP paper, equation 18: the sum over the five severities divided by the baseline's. Nan where a run is
    missing.
    """
    baseline = evidence.table.row(evidence.table.baseline or evidence.table.rows[0].name)
    lines = evidence.lines[panel]
    metrics = {CLEAN: "clean.error"}
    metrics |= {name: f"type.{name}.error" for name in evidence.corruption_types(panel)}

    def means(row: Row) -> dict[str, float]:
        found = {name: evidence.sample(panel, row, metric).mean for name, metric in metrics.items()}
        return {name: error for name, error in found.items() if error is not None}

    none, divisors = dict.fromkeys(metrics, math.nan), means(baseline)
    return {line.row.title: none | aggregates.corruption_errors(means(line.row), divisors) for line in lines}


def _heat_map(axis: Axes, table: dict[str, dict[str, float]]) -> None:
    """Colours by the logarithm, so that half and double look alike; beyond ``STRONGEST`` they go no further."""
    names = list(next(iter(table.values())))
    values = np.array([list(row.values()) for row in table.values()])
    shades = np.log(np.clip(values, 1 / STRONGEST, STRONGEST)) / math.log(STRONGEST)
    image = axis.imshow(shades, cmap="PuOr_r", vmin=-1, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        missing = math.isnan(value)
        # white on a dark shade, black on a pale one; without a value the page shows through
        dark = image.to_rgba(shades)[row, column, :3] @ LUMINANCE < 0.5
        colour = INK if missing else "#ffffff" if dark else "#202020"
        text = "–" if missing else f"{value:.2f}"
        axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    crowded = len(names) > 7
    axis.set_xticks(range(len(names)), [name.replace("_", " ") for name in names])
    axis.tick_params("x", rotation=90 if crowded else 0)
    axis.set_yticks(range(len(table)), list(table))
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def _styles(table: Table) -> dict[str, dict[str, Any]]:
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


def _panel_title(label: str, lines: tuple[Line, ...]) -> str:
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
    return f"{label} ({'; '.join(notes)})" if notes else label


@contextmanager
def report_figure(path: Path, height: float) -> Iterator[Figure]:
    """A figure in the report's style, written to ``path`` at the end, without a date or a version in it."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever style the caller's settings ask for
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(h_pad=0.08))
        yield figure
        figure.savefig(path, metadata={"Software": None})
