"""The tables and sentences of `weightaug dom`'s report."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import cache

from benchmarks.cost.dom import MATERIALISED, PLAIN, ZERO_FILLED, NetworkSavings
from benchmarks.cost.dom_savings import Distance
from benchmarks.cost.latency import TimeRatio
from benchmarks.cost.trade_off import Point, TradeOff
from benchmarks.registry import OWN_FOLDER
from benchmarks.reports.sections import Grid
from benchmarks.reports.text import plain, signed
from benchmarks.tables.published import load_published
from weightaug.kernel_draws import Crop, Draw, Shift


@cache
def published_saving() -> float:
    """What the abstract says that DOM saves "by up to", in %."""
    value = load_published(OWN_FOLDER / "published" / "was" / "abstract.yaml").value("any", "flops").value
    assert value is not None
    return value


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


def _ratio(ratio: TimeRatio) -> str:
    return f"{plain(ratio.fastest)} ({plain(ratio.low)} to {plain(ratio.high)})"


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
            signed(round(point.confirmation - mean.confirmation, 1) + 0.0, 1) if point is not mean else "–",
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
    published = published_saving()
    nearest, what = min(counts, key=lambda entry: abs(entry[0] - published))
    exact = abs(nearest - published) < 0.005
    most = {network_title(n.label): 100 * max(n.by_distance.values()) for n in networks}
    reach = [f"{title} ({plain(share, 1)} %)" for title, share in most.items() if share >= published]
    fall = [f"{title} ({plain(share, 1)} %)" for title, share in most.items() if share < published]
    always = max(networks, key=lambda n: n.expected_shift)
    own = max(networks, key=lambda n: n.expected)

    def mean(network: NetworkSavings, share: float) -> str:
        return f"{plain(100 * share, 1)} % ({network_title(network.label)})"

    return [
        f"{'One count here is' if exact else 'No count here gives'} {published} %"
        + ("" if exact else f"; the nearest is {plain(nearest)} %")
        + f" ({what}).",
        "As the most that one draw for all layers can save: "
        + (f"within reach of {', '.join(reach)}" if reach else "within reach of none")
        + (f"; out of reach of {', '.join(fall)}." if fall else "."),
        "As a mean over draws: the highest here is "
        f"{mean(always, always.expected_shift)} if T1 is always drawn, and {mean(own, own.expected)} with the "
        "transform that the network is given.",
    ]
