"""A network's cost as text for the terminal, and that of many networks as a page of Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from benchmarks.cost.network import NetworkCost, Training
from benchmarks.markdown import template

WIDTH = 110
LABEL = 16


def network_text(cost: NetworkCost) -> str:
    """All that was measured of one network."""
    forward = cost.forward
    channels, side, _ = cost.input_shape
    allowed = f"allowed: {forward.tolerance:.0%}"
    rows = [
        ("parameters", f"{forward.parameters:15,}"),
        ("MACs", f"{forward.macs:15,}  {_counts(forward.macs_by_operator)}"),
        ("FLOPs, fvcore", f"{forward.flops:15,}  two for each MAC"),
        ("FLOPs, torch", f"{forward.torch_flops:15,}  by torch.utils.flop_counter"),
        ("difference", f"{percent(forward.relative_difference):>15}  {allowed}"),
        *(
            ("differ in", f"{name or 'the network as a whole'}: {fvcore:,} by fvcore, {torch:,} by torch")
            for name, (fvcore, torch) in forward.partings.items()
        ),
        ("besides", _counts(forward.other_operations) or "nothing"),
        ("not counted", _counts(forward.uncounted_operators) or "nothing"),
        ("never called", ", ".join(forward.uncalled_modules) or "no module"),
        ("WAS transforms", _shadow(cost)),
    ]
    title = (
        f"{cost.model}, one {channels} x {side} x {side} image of {cost.dataset}, {cost.num_classes} classes"
    )
    training = [] if cost.training is None else ["", training_text(cost.training)]
    return "\n".join([title, *(_row(label, value) for label, value in rows), *training])


def training_text(training: Training) -> str:
    """A method's step beside a plain one, a line for each number of sub-batches."""
    plain = training.steps[0].cost
    lines = [
        f"One training step of {training.method} on a mini-batch of {training.batch}, in passes of SGD on the same:",
        _table("sub-batches", "forward", "backward", "both", "forward FLOPs", "backward FLOPs"),
        _table("(SGD)", "1", "1", "1", f"{plain.plain_forward_flops:,}", f"{plain.plain_backward_flops:,}"),
    ]
    for step in training.steps:
        cost = step.cost
        passes = (f"{number:.3f}" for number in (cost.forward_passes, cost.backward_passes, cost.passes))
        flops = (f"{cost.forward_flops:,}", f"{cost.backward_flops:,}")
        lines.append(_table("none" if step.sub_batches is None else str(step.sub_batches), *passes, *flops))
    return "\n".join(lines)


def models_page(costs: Sequence[NetworkCost]) -> str:
    """Markdown with a row for each network."""
    return template("cost", "models.md.j2").render(rows=[model_row(cost) for cost in costs])


def model_row(cost: NetworkCost) -> str:
    """The network's row of the Markdown table."""
    forward = cost.forward
    channels, side, _ = cost.input_shape
    layers = f"{len(cost.shadow_layers)} ({_shadow_share(cost)})" if cost.shadow_layers else "none"
    cells = (
        f"`{cost.model}`",
        cost.description,
        f"{cost.dataset}, {channels} x {side} x {side}, {cost.num_classes}",
        f"{forward.parameters:,}",
        f"{forward.macs:,}",
        f"{forward.flops:,}",
        f"{forward.torch_flops:,}",
        percent(forward.relative_difference),
        layers,
    )
    return f"| {' | '.join(cells)} |"


def percent(part: float) -> str:
    return f"{100 * part:.2f} %"


def _shadow(cost: NetworkCost) -> str:
    if not cost.shadow_layers:
        return "no layer"
    layers = ", ".join(cost.shadow_layers)
    return f"{len(cost.shadow_layers)} convolution(s), {_shadow_share(cost)} of the MACs: {layers}"


def _shadow_share(cost: NetworkCost) -> str:
    return f"{100 * cost.shadow_macs / cost.forward.macs:.1f} %"


def _counts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in numbers.items())


def _row(label: str, value: str) -> str:
    options = {"width": WIDTH, "subsequent_indent": " " * LABEL, "break_long_words": False}
    return textwrap.fill(f"{label:{LABEL}}{value}", **options, break_on_hyphens=False)  # type: ignore[arg-type]


def _table(first: str, *numbers: str) -> str:
    widths = (9, 9, 9, 20, 20)
    return f"{first:12}" + "".join(f"{n:>{width}}" for n, width in zip(numbers, widths, strict=True))
