"""A table's report in W&B: its table, its claims and its plots, as a run of its own in the table's group."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.launch.request import Place, Request
from benchmarks.reports.evidence import Evidence, gather
from benchmarks.results.card import Card
from benchmarks.results.wandb_mirror import Mirror

NUMBERS = ["panel", "row", "column", "published", "mean", "standard deviation", "runs", "verdict"]
CLAIMS = ["panel", "claim", "source", "difference or ratio", "low", "high", "p (Holm)", "verdict", "reason"]


def mirror_report(request: Request, cards: Mapping[Place, Card | None], report: Path) -> str:
    """Send the report to W&B; the same cards give the same run. Returns the run's id.

    Args:
        report: the report's Markdown file; its plots lie in the folder of the same name beside it.
    """
    evidence = gather(request.table, request.scale, request.seeds, cards, request.published())
    name, run_id = f"report-{report.stem}-{request.scale}", report_id(request, evidence)
    mirror = Mirror(request.runtime.wandb, request.runtime.store_folder, request.table.name)
    if mirror.start(run_id, name, {"scale": request.scale, "seeds": list(request.seeds)}, job_type="report"):
        tables = {"report": (NUMBERS, _numbers(evidence)), "claims": (CLAIMS, _claims(evidence))}
        mirror.report(tables, sorted(report.with_suffix("").glob("*.png")))
    return run_id


def report_id(request: Request, evidence: Evidence) -> str:
    """A W&B id made of the table, the scale and what the report was made from."""
    content = json.dumps([evidence.cards, list(request.seeds)], sort_keys=True)
    digest = hashlib.blake2b(content.encode(), digest_size=4).hexdigest()
    return f"report-{request.table.name.replace('/', '-')}-{request.scale}-{digest}"


def _numbers(evidence: Evidence) -> list[list[Any]]:
    return [
        [
            panel,
            line.row.title,
            number.column.label,
            number.published and number.published.value,
            number.sample.mean,
            number.sample.spread,
            number.sample.runs,
            str(number.finding.verdict),
        ]
        for panel, lines in evidence.lines.items()
        for line in lines
        for number in line.numbers
    ]


def _claims(evidence: Evidence) -> list[list[Any]]:
    return [
        [
            claim.panel.name,
            claim.claim.text,
            claim.claim.source,
            claim.finding.estimate,
            claim.finding.low,
            claim.finding.high,
            claim.finding.corrected_p,
            str(claim.finding.verdict),
            claim.finding.reason,
        ]
        for claim in evidence.claims
    ]
