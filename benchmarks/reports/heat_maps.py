"""Heat maps of corruption errors, as the DAMP paper's Figures 3, 5 and 6, beside the published ratios."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.reports import aggregates
from benchmarks.reports.aggregates import CLEAN
from benchmarks.reports.plots import INK, panel_title, report_figure
from benchmarks.tables.table import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmarks.reports.evidence import Evidence

STRONGEST = 2.5  # the ratio (or its inverse) that has the darkest colour
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
CROWDED = 7  # names of more columns stand upright
Ratios = dict[str, dict[str, float]]
"""Row title -> corruption type, and clean -> ratio; nan where there is none."""


def corruption_plot(evidence: Evidence, path: Path) -> None:
    """Heat maps of the corruption error, the sum of errors over severities relative to the baseline row's."""
    panels = [panel for panel in evidence.scale.panels if corruption_errors(evidence, panel.name)]
    tables = {panel.name: corruption_errors(evidence, panel.name) for panel in panels}
    printed = {panel.name: published_ratios(evidence, panel.name) for panel in panels}
    heights = [(0.36 if any(printed[name].values()) else 0.27) * len(table) for name, table in tables.items()]
    crowded = max(len(next(iter(table.values()))) for table in tables.values()) > CROWDED
    named = _named(list(tables.values()))
    space = 0.4 * len(tables) + (1.0 if crowded else 0.3) * sum(named)
    with report_figure(path, sum(heights) + space + 0.2) as figure:
        axes = figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights)
        for axis, panel, with_names in zip(axes[:, 0], panels, named, strict=True):
            _heat_map(axis, tables[panel.name], printed[panel.name], with_names)
            axis.set_title(panel_title(panel.label, evidence.lines[panel.name]), loc="left")


def _named(tables: list[Ratios]) -> list[bool]:
    """Which maps have the names of the types below them: of many that are alike, the first and the last."""
    alike = len({tuple(next(iter(table.values()))) for table in tables}) == 1
    return [not alike or place in (0, len(tables) - 1) for place in range(len(tables))]


def published_ratios(evidence: Evidence, panel: str) -> Ratios:
    """What was published of the same ratios; empty rows where nothing was."""
    found: Ratios = {}
    for line in evidence.lines[panel]:
        ratios = found.setdefault(line.row.title, {})
        for number in line.numbers:
            kind, _, rest = (number.column.metric[0] if len(number.column.metric) == 1 else "").partition(".")
            name = CLEAN if kind == CLEAN else rest.removesuffix(".error") if kind == "type" else ""
            if number.column.relative and name and number.published and number.published.value is not None:
                ratios[name] = number.published.value
    return found


def corruption_errors(evidence: Evidence, panel: str) -> Ratios:
    """Row title -> corruption type (and clean) -> error relative to the baseline row, ratio of means over
    seeds.

    DAMP paper, equation 18: the sum over the five severities divided by the baseline's. Nan where a run is
    missing; empty where no corruption was measured.
    """
    baseline = evidence.table.row(evidence.table.baseline or evidence.table.rows[0].name)
    lines = evidence.lines[panel]
    types = evidence.corruption_types(panel)
    if not types:
        return {}
    metrics = {CLEAN: "clean.error"} | {name: f"type.{name}.error" for name in types}

    def means(row: Row) -> dict[str, float]:
        found = {name: evidence.sample(panel, row, metric).mean for name, metric in metrics.items()}
        return {name: error for name, error in found.items() if error is not None}

    none, divisors = dict.fromkeys(metrics, math.nan), means(baseline)
    return {line.row.title: none | aggregates.corruption_errors(means(line.row), divisors) for line in lines}


def _heat_map(axis: Axes, table: Ratios, printed: Ratios, with_names: bool) -> None:
    """Colours by the logarithm, so that half and double look alike; beyond ``STRONGEST`` they go no further."""
    names, titles = list(next(iter(table.values()))), list(table)
    values = np.array([list(row.values()) for row in table.values()])
    shades = np.log(np.clip(values, 1 / STRONGEST, STRONGEST)) / math.log(STRONGEST)
    image = axis.imshow(shades, cmap="PuOr_r", vmin=-1, vmax=1, aspect="auto")
    # white on a dark shade, black on a pale one; without a value the page shows through
    dark = image.to_rgba(shades)[..., :3] @ LUMINANCE < 0.5
    for (row, column), value in np.ndenumerate(values):
        missing = math.isnan(value)
        colour = INK if missing else "#ffffff" if dark[row, column] else "#202020"
        text = "–" if missing else f"{value:.2f}"
        known = printed[titles[row]].get(names[column])
        lift = 0 if known is None else 0.16
        style: dict[str, Any] = {"ha": "center", "va": "center", "color": colour, "in_layout": False}
        axis.text(column, row - lift, text, fontsize=8, **style)
        if known is not None:
            axis.text(column, row + 0.28, f"{known:.2f}", fontsize=6, **style)
    crowded = len(names) > CROWDED
    axis.set_xticks(range(len(names)), [name.replace("_", " ") if with_names else "" for name in names])
    axis.tick_params("x", rotation=90 if crowded else 0)
    axis.set_yticks(range(len(table)), titles)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
