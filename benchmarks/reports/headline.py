"""The head of a report: one sentence, the verdicts counted, and why the rest is not known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from benchmarks.reports.evidence import Evidence
from benchmarks.reports.sections import Grid, run_counts
from benchmarks.reports.text import KINDS, MARKS, literal
from benchmarks.reports.verdicts import Finding, Verdict
from benchmarks.tables.claims import Ordering

WORDS = {
    Verdict.REPRODUCED: "reproduced",
    Verdict.DIFFERENT: "different",
    Verdict.INCONCLUSIVE: "inconclusive",
    Verdict.PROTOCOL_MISMATCH: "not comparable",
    Verdict.NOT_RUN: "not run",
}
OF_ORDERINGS = {**WORDS, Verdict.REPRODUCED: "hold", Verdict.DIFFERENT: "contradicted"}
"""How a verdict reads in the sentence. What has no reference is not among what could be reproduced."""


def sentence(evidence: Evidence) -> str:
    """What was reproduced and what was not, in one plain sentence."""
    parts = []
    for name, kind in reversed(KINDS.items()):
        counts, words = evidence.counts(kind), OF_ORDERINGS if kind is Ordering else WORDS
        total = sum(counts[verdict] for verdict in words)
        if not total:
            continue
        what = name if total > 1 else name.removesuffix("s")
        told = [(counts[verdict], word) for verdict, word in words.items() if counts[verdict]]
        if len(told) == 1:
            told_of = f"all {total} {what}" if total > 1 else f"the one {what.removeprefix('the ')}"
            parts.append(f"{told_of} {told[0][1]}")
            continue
        (first, word), *others = (
            told if counts[Verdict.REPRODUCED] else [(0, words[Verdict.REPRODUCED]), *told]
        )
        parts.append(", ".join([f"{first} of {total} {what} {word}", *(f"{n} {w}" for n, w in others)]))
    if not parts:
        parts = ["measured, without any published statement to set it against"]
    return f"At {evidence.scale.name} scale: {'; '.join(parts)}. {run_counts(evidence)}."


def verdict_counts(evidence: Evidence) -> Grid:
    """Kind of statement by verdict; only the verdicts that were given at all."""
    by_kind = {name: evidence.counts(kind) for name, kind in KINDS.items()}
    given = [verdict for verdict in Verdict if any(counts[verdict] for counts in by_kind.values())]
    rows = [
        [name, *(str(counts[verdict] or "") for verdict in given), str(sum(counts.values()))]
        for name, counts in by_kind.items()
        if counts
    ]
    return Grid(["", *(f"{MARKS[verdict]} {verdict}" for verdict in given), "together"], rows)


def unknown(evidence: Evidence) -> list[str]:
    """Why verdicts are neither REPRODUCED nor DIFFERENT: each reason with how often it was given."""
    lines = []
    for verdict in Verdict:
        if verdict in (Verdict.REPRODUCED, Verdict.DIFFERENT):
            continue
        found = [finding for finding in _findings(evidence) if finding.verdict is verdict]
        reasons = Counter(_reason(finding) for finding in found)
        if found:
            told = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common())
            lines.append(f"{MARKS[verdict]} **{verdict}**: {told}")
    return lines


def _findings(evidence: Evidence) -> Iterator[Finding]:
    for lines in evidence.lines.values():
        for line in lines:
            yield from (number.finding for number in line.numbers if number.published is not None)
    yield from (found.finding for found in evidence.claims)


def _reason(finding: Finding) -> str:
    needed = finding.more_seeds
    if needed is None:
        return literal(finding.reason) or "no card"
    for most in (3, 10, 100):
        if needed <= most:
            return f"up to {most} more seeds would decide"
    return "hundreds of seeds more would decide: the effect is small beside the spread"
