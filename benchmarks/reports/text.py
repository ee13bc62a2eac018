"""How numbers and verdicts are written, the same in a report and on the terminal."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from benchmarks.reports.evidence import ClaimFinding, Evidence, Number, Sample
from benchmarks.reports.verdicts import Finding, Verdict
from benchmarks.tables.claims import Claim, Ordering, Ratio, StatedNumber

MINUS = "\N{MINUS SIGN}"
KINDS: dict[str, type[Claim] | None] = {
    **{cls.plural: cls for cls in (Ordering, Ratio, StatedNumber)},
    "published numbers": None,
}
MARKS = {
    Verdict.REPRODUCED: "✓",
    Verdict.DIFFERENT: "✗",
    Verdict.INCONCLUSIVE: "?",
    Verdict.NO_REFERENCE: "○",
    Verdict.PROTOCOL_MISMATCH: "⊘",
    Verdict.NOT_RUN: "–",
}
"""Signs that differ in form, for cells too small for a word."""
ACTIVE = re.compile(r"[\\`*\[\]~]|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown may take for markup; an underscore inside a word is none."""


def literal(text: object) -> str:
    """``text`` from a card, a setting or a command line, so that Markdown and HTML show it as it stands."""
    line = html.escape(" ".join(str(text).split()), quote=False)
    return ACTIVE.sub(lambda found: f"\\{found.group()}", line)


def prose(text: str) -> str:
    """A sentence of a table's file, in which Markdown may stand but no HTML."""
    return text.replace("<", "&lt;")


def plain(number: float, digits: int = 2) -> str:
    """``number`` with ``digits`` decimals and a true minus sign."""
    return f"{number:.{digits}f}".replace("-", MINUS)


def signed(number: float, digits: int = 2) -> str:
    """``number`` with its sign, also when it is positive."""
    return f"{number:+.{digits}f}".replace("-", MINUS)


def p_value(p: float) -> str:
    """``p`` to three decimals."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def spread_text(sample: Sample, digits: int = 2, scale: float = 1.0) -> str:
    """Mean ± standard deviation, or why there is none. Diverged runs are never averaged over."""
    if sample.diverged:
        return f"diverged {len(sample.diverged)} of {sample.runs}"
    if sample.mean is None:
        return "NOT RUN" if not sample.runs and not sample.unmeasured else "not measured"
    text = plain(sample.mean / scale, digits)
    return text if sample.spread is None else f"{text} ± {plain(sample.spread / scale, digits)}"


def cost_text(sample: Sample, digits: int = 2, scale: float = 1.0) -> str:
    """As :func:`spread_text`, but of a cost, which a diverged run has too."""
    return spread_text(Sample(sample.values, (), sample.missing), digits, scale)


def published_text(number: Number) -> str:
    """The value and its spread as printed."""
    printed = number.published
    if printed is None or printed.value is None:
        return "–"
    text = plain(printed.value, printed.digits)
    if printed.spread is None:
        return text
    return f"{text} ± {'<' if printed.bound else ''}{plain(printed.spread, printed.digits)}"


def difference_text(number: Number) -> str:
    """Measured minus published."""
    finding = number.finding
    return "–" if finding.estimate is None else signed(finding.estimate, number.column.digits)


def interval_text(number: Number) -> str:
    """The 90 % interval of the difference, where one was computed."""
    finding, digits = number.finding, number.column.digits
    if finding.low is None or finding.high is None:
        return "–"
    return f"{signed(finding.low, digits)} to {signed(finding.high, digits)}"


def finding_text(finding: Finding) -> str:
    """The verdict, and in brackets what would decide it."""
    text = str(finding.verdict)
    if finding.more_seeds is not None:
        text += f" (about {finding.more_seeds} more seed{'s' * (finding.more_seeds > 1)})"
    elif finding.verdict is Verdict.INCONCLUSIVE and finding.reason:
        text += f" ({finding.reason})"
    return text


def claim_evidence(found: ClaimFinding) -> str:
    """The estimate of a claim with its interval."""
    finding = found.finding
    if finding.estimate is None:
        return "–"
    show = signed if isinstance(found.claim, Ordering) else plain
    unit = " ×" if isinstance(found.claim, Ratio) else ""
    if isinstance(found.claim, StatedNumber):
        unit = f" {found.claim.unit}"
    text = show(finding.estimate) + unit
    if finding.low is None or finding.high is None:
        return text
    return f"{text} ({show(finding.low)} to {show(finding.high)})"


def count_text(counts: Mapping[Verdict, int]) -> str:
    """The verdicts and how often each was given, in the order of :class:`Verdict`."""
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts.get(verdict))


def summary(evidence: Evidence) -> list[tuple[str, str]]:
    """For each kind of statement that the table makes, its name and the verdict counts."""
    lines = []
    for name, kind in KINDS.items():
        counts = evidence.counts(kind)
        if total := sum(counts.values()):
            lines.append((f"{total} {name if total > 1 else name.removesuffix('s')}", count_text(counts)))
    return lines


def flat(value: Any) -> str:
    """A provenance entry in one line: mappings as ``key value`` pairs, bytes as GiB."""
    if isinstance(value, Mapping):
        sizes = {key: key.endswith("_bytes") and isinstance(item, int) for key, item in value.items()}
        return ", ".join(
            f"{key.removesuffix('_bytes')} {item / 2**30:.0f} GiB" if sizes[key] else f"{key} {flat(item)}"
            for key, item in sorted(value.items())
        )
    if isinstance(value, list | tuple):
        return ", ".join(map(flat, value))
    return str(value)
