"""The report of `weightaug dom`: Markdown, a plot and every number as JSON; the main tables for the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from benchmarks.cost.dom import CLASSES, INPUT, MATERIALISED, PLAIN, SAMPLES, ZERO_FILLED, NetworkSavings
from benchmarks.cost.dom_savings import Distance
from benchmarks.cost.trade_off import Point, TradeOff
from benchmarks.reports.plots import COLOURS, INK, report_figure
from benchmarks.reports.render import template
from benchmarks.reports.sections import Grid
from benchmarks.reports.text import flat, plain, signed
from benchmarks.results.files import write_json, write_text
from weightaug.kernel_draws import Crop, Draw, Shift

PUBLISHED = 36.33
"""The abstract of arXiv 2405.19590: DOM reduces FLOPs "by up to" so many per cent. Nothing else is known of it."""


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
    return template("dom.md.j2").render(
        savings=savings_grid(findings.networks),
        convolutions=convolutions_grid(findings.networks),
        counted=counted_grid(findings.networks),
        counts_agree=all(a == b for n in findings.networks for a, b in n.fvcore_macs.values()),
        latency=latency_grid(findings.networks),
        rounds=sorted(
            {len(t.seconds) for n in findings.networks for x in n.latencies for t in x.timings.values()}
        ),
        trade_off=findings.trade_off,
        accuracies=accuracy_grid(findings.trade_off),
        draws=draws_grid(findings.trade_off),
        relation=relation_to_published(findings.networks),
        published=PUBLISHED,
        cell=findings.cell,
        input="x".join(map(str, INPUT)),
        classes=CLASSES,
        samples=SAMPLES,
        provenance=Grid(["", ""], [[key, flat(value)] for key, value in findings.provenance.items()]),
        command=findings.command,
    )


def network_title(label: str) -> str:
    """``model=vgg16_was model.hidden=4096`` as ``vgg16_was, hidden=4096``."""
    return ", ".join(
        part.removeprefix("model=").removeprefix("model.").removeprefix("method.") for part in label.split()
    )


def distance_text(far: Distance) -> str:
    """How far a shift moves the taps, in words."""
    longer, shorter = far
    if not longer:
        return "no shift"
    if longer == shorter:
        return f"{longer} tap{'s' * (longer > 1)} along both axes"
    along = f"{longer} tap{'s' * (longer > 1)} along one axis"
    return f"{along}, {shorter} along the other" if shorter else along


def _percent(share: float, digits: int = 1) -> str:
    return plain(100 * share, digits)


def _distances(networks: Sequence[NetworkSavings]) -> list[Distance]:
    """Every distance other than none that some network can draw."""
    return sorted({far for network in networks for far in network.by_distance} - {(0, 0)})


def savings_grid(networks: Sequence[NetworkSavings]) -> Grid:
    """What share of a network's FLOPs can be saved, and what is to be expected, in %."""
    distances = _distances(networks)
    rows = []
    for network in networks:
        shadow = sum(layer.macs for layer in network.cost.layers.values())
        mean, error = network.sampled
        rows.append(
            [
                network_title(network.label),
                plain(network.cost.macs / 1e6, 2),
                _percent(shadow / network.cost.macs),
                *(_percent(network.by_distance[d]) if d in network.by_distance else "–" for d in distances),
                _percent(network.mean_moved),
                _percent(network.expected_shift),
                _percent(network.expected),
                f"{_percent(mean)} ± {_percent(error)}",
            ]
        )
    headings = ["Network", "MACs (M)", "in shadow layers", *map(distance_text, distances)]
    return Grid(
        [*headings, "mean of all shifts that move", "expected, T1 always", "expected", "sampled"], rows
    )


def convolutions_grid(networks: Sequence[NetworkSavings]) -> Grid:
    """The same savings as a share of the convolutions' FLOPs, in %."""
    distances = _distances(networks)
    rows = []
    for network in networks:
        shares = [network.by_distance.get(far) for far in distances]
        shares += [network.mean_moved, network.expected_shift, network.expected]
        rows.append(
            [
                network_title(network.label),
                plain(network.cost.convolution_macs / 1e6, 2),
                *("–" if s is None else _percent(s * network.of_convolutions, 2) for s in shares),
            ]
        )
    headings = ["Network", "MACs of convolutions (M)", *map(distance_text, distances)]
    return Grid([*headings, "mean of all shifts that move", "expected, T1 always", "expected"], rows)


def counted_grid(networks: Sequence[NetworkSavings]) -> Grid:
    """Multiply-adds of the materialised networks: computed and counted."""
    distances = [(0, 0), *_distances(networks)]
    rows = []
    for network in networks:
        cells = []
        for far in distances:
            computed, counted = network.fvcore_macs.get(far, (None, None))
            cells += [
                "–" if computed is None else f"{computed:,}",
                "–" if counted is None else f"{counted:,}",
            ]
        rows.append([network_title(network.label), *cells])
    pairs = [f"{distance_text(far)}<br>{kind}" for far in distances for kind in ("computed", "fvcore")]
    return Grid(["Network", *pairs], rows)


def latency_grid(networks: Sequence[NetworkSavings]) -> Grid | None:
    """Ratios of seconds, one row for each network and distance; None where nothing was timed."""
    places = list(dict.fromkeys((x.device, x.batch) for network in networks for x in network.latencies))
    if not places:
        return None
    rows = []
    for network in networks:
        for far in sorted(network.by_distance.keys() - {(0, 0)}):
            cells = []
            for latency in network.latencies:
                zero = latency.relative(ZERO_FILLED, PLAIN, far)
                real = latency.relative(MATERIALISED, ZERO_FILLED, far)
                cells += [_ratio(zero), _ratio(real)]
            macs = network.fvcore_macs[far][1] / network.fvcore_macs[0, 0][1]
            rows.append([network_title(network.label), distance_text(far), plain(macs), *cells])
    headings = []
    for device, batch in places:
        where = f"{device}, batch {batch}"
        headings += [f"{where}<br>zero-filled / plain", f"{where}<br>materialised / zero-filled"]
    return Grid(["Network", "Every shadow layer shifted by", "FLOPs / plain", *headings], rows)


def _ratio(quartiles: tuple[float, float, float]) -> str:
    low, middle, high = quartiles
    return f"{plain(middle)} ({plain(low)} to {plain(high)})"


def accuracy_grid(trade_off: TradeOff) -> Grid:
    """FLOPs and accuracies of all that was measured, in %."""
    chance = trade_off.random
    mean = Point(
        statistics.fmean(p.share for p in chance),
        statistics.fmean(p.selection for p in chance),
        statistics.fmean(p.confirmation for p in chance),
    )
    spread = statistics.stdev(p.confirmation for p in chance)
    lines = [
        ("plain weights (AOM)", trade_off.plain, ""),
        ("shadow weights, no shift", trade_off.still, ""),
        (f"draws by chance, mean of {len(chance)}", mean, f" ± {plain(spread, 1)}"),
        *((f"found for at most {100 * f.budget:g} %", f.point, "") for f in trade_off.found),
    ]
    rows = [
        [
            title,
            _percent(point.share),
            plain(point.selection, 1),
            plain(point.confirmation, 1) + more,
            signed(point.confirmation - mean.confirmation, 1) if point is not mean else "–",
        ]
        for title, point, more in lines
    ]
    headings = ["Weights", "FLOPs", "accuracy, searched", "accuracy, confirmed", "against chance"]
    return Grid(headings, rows)


def draws_grid(trade_off: TradeOff) -> Grid:
    """The draws that were found, layer by layer."""
    layers = list(trade_off.found[0].draws)
    rows = [[name, *(draw_text(found.draws[name]) for found in trade_off.found)] for name in layers]
    return Grid(["Layer", *(f"at most {100 * f.budget:g} %" for f in trade_off.found)], rows)


def draw_text(draw: Draw) -> str:
    """A draw in a few words."""
    if isinstance(draw, Crop):
        return f"window of {draw.height}x{draw.width} at ({draw.top}, {draw.left})"
    if not isinstance(draw, Shift):
        return str(draw)
    ways = [
        f"{abs(step)} {way[step > 0]}"
        for step, way in ((draw.dx, ("left", "right")), (draw.dy, ("up", "down")))
        if step
    ]
    return ", ".join(ways) or "–"


def relation_to_published(networks: Sequence[NetworkSavings]) -> list[str]:
    """How the published figure relates to what was counted here, in sentences; all numbers are computed."""
    counts: list[tuple[float, str]] = []
    for network in networks:
        title = network_title(network.label)
        kinds = {distance_text(far): share for far, share in network.by_distance.items() if far != (0, 0)}
        kinds["mean of all shifts that move"] = network.mean_moved
        kinds["expected, T1 always"] = network.expected_shift
        kinds["expected"] = network.expected
        for kind, share in kinds.items():
            counts.append((100 * share, f"{title}: {kind}"))
            counts.append((100 * share * network.of_convolutions, f"{title}, convolutions alone: {kind}"))
    nearest, what = min(counts, key=lambda entry: abs(entry[0] - PUBLISHED))
    exact = abs(nearest - PUBLISHED) < 0.005
    most = {network_title(n.label): 100 * max(n.by_distance.values()) for n in networks}
    reach = [f"{title} ({plain(share, 1)} %)" for title, share in most.items() if share >= PUBLISHED]
    fall = [f"{title} ({plain(share, 1)} %)" for title, share in most.items() if share < PUBLISHED]
    always = max(networks, key=lambda n: n.expected_shift)
    own = max(networks, key=lambda n: n.expected)

    def mean(network: NetworkSavings, share: float) -> str:
        return f"{plain(100 * share, 1)} % ({network_title(network.label)})"

    return [
        f"{'One count here is' if exact else 'No count here gives'} {PUBLISHED} %"
        + ("" if exact else f"; the nearest is {plain(nearest)} %")
        + f" ({what}).",
        "As the most that one draw for all layers can save: "
        + (f"within reach of {', '.join(reach)}" if reach else "within reach of none")
        + (f"; out of reach of {', '.join(fall)}." if fall else "."),
        "As a mean over draws: the highest here is "
        f"{mean(always, always.expected_shift)} if T1 is always drawn, and {mean(own, own.expected)} with the "
        "transform that the network is given.",
    ]


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
    """The main numbers for the terminal: ratios without their quartiles, no sizes."""
    latency = latency_grid(findings.networks)
    savings = savings_grid(findings.networks)
    tables = [
        _terminal(
            "FLOPs that DOM can save, in %", savings, hidden=("MACs (M)", "in shadow layers", "sampled")
        )
    ]
    if latency is not None:
        tables.append(_terminal("Seconds of a forward pass, median ratios", latency))
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
