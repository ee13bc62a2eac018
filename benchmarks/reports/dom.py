"""The report of `weightaug dom`: Markdown, a plot and every number as JSON; the main tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from benchmarks.cost.dom import CLASSES, INPUT, SAMPLES, NetworkSavings
from benchmarks.cost.dom_savings import Distance
from benchmarks.cost.trade_off import Point, TradeOff
from benchmarks.markdown import template
from benchmarks.reports.dom_tables import (
    accuracy_grid,
    convolutions_grid,
    counted_grid,
    draws_grid,
    latency_grid,
    published_saving,
    relation_to_published,
    savings_grid,
)
from benchmarks.reports.plots import COLOURS, INK, report_figure
from benchmarks.reports.sections import Grid
from benchmarks.reports.text import flat
from benchmarks.results.files import write_json, write_text

BATCH = 128
"""The batch size of the authors' code."""


@dataclass(frozen=True)
class Findings:
    """All that the report tells."""

    networks: tuple[NetworkSavings, ...]
    trade_off: TradeOff
    cell: str
    """What was trained for the trade-off."""
    provenance: dict[str, Any]
    command: str


def write_report(findings: Findings, folder: Path) -> Path:
    """Write dom.md, trade_off.png and measurements.json into ``folder``; return the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    trade_off_plot(findings.trade_off, folder / "trade_off.png")
    write_json(folder / "measurements.json", as_json(findings))
    path = folder / "dom.md"
    write_text(path, markdown(findings))
    return path


def markdown(findings: Findings) -> str:
    """The report's text."""
    return template("reports", "dom.md.j2").render(
        savings=savings_grid(findings.networks),
        convolutions=convolutions_grid(findings.networks),
        counted=counted_grid(findings.networks),
        counts_agree=all(a == b for n in findings.networks for a, b in n.fvcore_macs.values()),
        latency=latency_grid(findings.networks),
        papers_batch=BATCH in {x.batch for n in findings.networks for x in n.latencies},
        batch=BATCH,
        rounds=sorted(
            {len(t.seconds) for n in findings.networks for x in n.latencies for t in x.timings.values()}
        ),
        trade_off=findings.trade_off,
        accuracies=accuracy_grid(findings.trade_off),
        draws=draws_grid(findings.trade_off),
        relation=relation_to_published(findings.networks),
        published=published_saving(),
        cell=findings.cell,
        input="x".join(map(str, INPUT)),
        classes=CLASSES,
        samples=SAMPLES,
        provenance=Grid(["", ""], [[key, flat(value)] for key, value in findings.provenance.items()]),
        command=findings.command,
    )


def trade_off_plot(trade_off: TradeOff, path: Path) -> None:
    """Accuracy on the confirmation part against FLOPs."""

    def draw(points: Sequence[Point], label: str, **style: Any) -> None:
        axis.plot([100 * p.share for p in points], [p.confirmation for p in points], label=label, **style)

    with report_figure(path, 3.6) as figure:
        axis = figure.subplots()
        hollow: dict[str, Any] = {"linestyle": "none", "markerfacecolor": "none"}
        draw(trade_off.random, "draws by chance (DOM)", marker="o", color=INK, markersize=4.5, **hollow)
        draw(
            [trade_off.plain],
            "plain weights (AOM)",
            marker="D",
            color=COLOURS[4],
            markersize=6,
            linestyle="none",
        )
        draw(
            [trade_off.still],
            "shadow weights, no shift",
            marker="s",
            color=COLOURS[1],
            markersize=6,
            **hollow,
        )
        best = sorted((found.point for found in trade_off.found), key=lambda p: p.share)
        draw(best, "found by the search", marker="^", color=COLOURS[0], markersize=6.5, linewidth=1.3)
        axis.set_xlabel("FLOPs, % of the plain network's")
        axis.set_ylabel("accuracy on training images\nheld out from the search (%)")
        axis.grid()
        figure.legend(loc="outside lower center", ncols=4)


def terminal_tables(findings: Findings) -> list[RichTable]:
    """The main numbers for the terminal: ratios without their spread, no sizes."""
    latency = latency_grid(findings.networks)
    savings = savings_grid(findings.networks)
    tables = [
        _terminal(
            "FLOPs that DOM can save, in %", savings, hidden=("MACs (M)", "in shadow layers", "sampled")
        )
    ]
    if latency is not None:
        tables.append(_terminal("Seconds of a forward pass, ratios of the fastest", latency))
    return [*tables, _terminal(f"Accuracy in % of {findings.cell}", accuracy_grid(findings.trade_off))]


def _terminal(title: str, grid: Grid, hidden: Sequence[str] = ()) -> RichTable:
    table = RichTable(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown = [number for number, heading in enumerate(grid.headings) if heading not in hidden]
    for number in shown:
        heading = grid.headings[number].replace("<br>", "\n").replace("materialised", "materi-\nalised")
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    for row in grid.rows:
        table.add_row(*(row[number].split(" (")[0] for number in shown))
    return table


def as_json(findings: Findings) -> dict[str, Any]:
    """Every measured number, seconds of single passes included."""

    def name(far: Distance) -> str:
        return ",".join(map(str, far))

    networks = [
        {
            "network": network.label,
            "macs": network.cost.macs,
            "convolution_macs": network.cost.convolution_macs,
            "shadow_layers": {
                key: {"kernel": list(layer.size), "macs": layer.macs}
                for key, layer in network.cost.layers.items()
            },
            "saving_by_distance": {name(far): share for far, share in network.by_distance.items()},
            "mean_saving_moved": network.mean_moved,
            "expected_saving_t1": network.expected_shift,
            "expected_saving": network.expected,
            "sampled_saving": {
                "mean": network.sampled[0],
                "standard_error": network.sampled[1],
                "draws": SAMPLES,
            },
            "materialised_macs": {
                name(far): {"computed": a, "fvcore": b} for far, (a, b) in network.fvcore_macs.items()
            },
            "latency": [
                {
                    "device": latency.device,
                    "batch": latency.batch,
                    "seconds": {
                        f"{kind} {name(far)}": list(timings.seconds)
                        for (kind, far), timings in latency.timings.items()
                    },
                }
                for latency in network.latencies
            ],
        }
        for network in findings.networks
    ]
    found = findings.trade_off
    return {
        "networks": networks,
        "trade_off": {
            "cell": findings.cell,
            "images": dict(zip(("trained", "searched", "confirmed"), found.images, strict=True)),
            "held_out": found.held_out,
            "plain": vars(found.plain),
            "no_shift": vars(found.still),
            "negative_coefficients": list(found.negative),
            "by_chance": [vars(point) for point in found.random],
            "found": [
                {"budget": f.budget, "draws": {k: str(d) for k, d in f.draws.items()}, **vars(f.point)}
                for f in found.found
            ],
            "networks_scored": found.scored,
        },
        "provenance": findings.provenance,
        "command": findings.command,
    }
