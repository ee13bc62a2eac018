"""A comparison as Markdown for a pull request."""

from __future__ import annotations

from statistics import fmean

from benchmarks.compare.compare import COST, Comparison, Result
from benchmarks.compare.judge import ALPHA, Change
from benchmarks.markdown import template

UNITS = {"error": "%", "nll": "nats", "ece": "", "seconds_per_epoch": "s"}


def markdown(result: Result) -> str:
    """The summary in the first line, what changed beyond noise, and the rest folded away."""
    return template("compare", "compare.md.j2").render(
        result=result,
        summary=summary(result),
        beyond=[_row(found) for found in result.beyond_noise],
        all=[_row(found) for found in result.comparisons],
        alpha=ALPHA,
    )


def summary(result: Result) -> str:
    """One line."""
    counts = result.counts
    worse = sum(found.regression for found in result.comparisons)
    slower = counts[Change.WORSE] - worse
    parts = [f"{worse} worse"] + ([f"{slower} slower"] if slower else [])
    parts += [f"{counts[c]} {c}" for c in (Change.BETTER, Change.NOISE, Change.EQUAL)]
    parts += [f"{counts[Change.NOT_JUDGED]} not judged"] * bool(counts[Change.NOT_JUDGED])
    diverged = sum(found.regression for found in result.divergences)
    parts += [f"{diverged} newly diverged"] * bool(diverged)
    verdict = "REGRESSION" if result.regressions else "no regression"
    lacking = "; not all cells of A are in B" if result.only_a else ""
    return f"{verdict}: {', '.join(parts)}{lacking}"


def _row(found: Comparison) -> str:
    judged = found.judged
    unit = UNITS[found.metric.rpartition(".")[2]]
    interval = f" [{judged.low:+.4g}, {judged.high:+.4g}]" if judged.low is not None else ""
    p = f"{judged.corrected_p:.2g}" if judged.corrected_p is not None else "-"
    change = str(judged.change)
    if found.metric == COST:
        change = {Change.WORSE: "slower", Change.BETTER: "faster"}.get(judged.change, change)
    cells = [
        found.group,
        " ".join(filter(None, (found.mode, found.metric))),
        f"{fmean(found.a.values()):.6g} ({len(found.a)})",
        f"{fmean(found.b.values()):.6g} ({len(found.b)})",
        f"{judged.difference:+.4g}{interval} {unit}".strip(),
        p,
        f"**{change}**" if judged.change in (Change.WORSE, Change.BETTER) else change,
        judged.how,
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
