"""A table's report in W&B: its table, its claims and its plots, as a run of its own in the table's group."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.launch.request import Position, Request
from benchmarks.reports.evidence import Evidence, gather
from benchmarks.results.card import Card
from benchmarks.results.wandb_log import holds_report, runs_of
from benchmarks.results.wandb_mirror import Mirror

NUMBERS = ["panel", "row", "column", "published", "mean", "standard deviation", "runs", "verdict"]
CLAIMS = ["panel", "claim", "source", "difference or ratio", "low", "high", "p (Holm)", "verdict", "reason"]


def mirror_report(
    request: Request, cards: Mapping[Position, Card | None], report: Path, force: bool = False
) -> tuple[list[Path], bool]:
    """Send the report to W&B, unless an offline run has it; the same cards give the same run.

    Args:
        report: the report's Markdown file; its plots lie in the folder of the same name beside it.
        force: send it all the same.

    Returns:
        The offline runs of its id that were there before, and whether W&B has the report now.
    """
    runtime, group = request.runtime, request.table.name
    evidence = gather(request.table, request.scale, request.seeds, cards, request.published())
    name, run_id = f"report-{report.stem}-{request.scale}", report_id(request, evidence)
    before = runs_of(runtime.store_folder, run_id)
    if runtime.wandb == "offline" and not force and any(map(holds_report, before)):
        return before, True
    mirror = Mirror(runtime.wandb, runtime.store_folder, group)
    config = {"scale": request.scale, "seeds": list(request.seeds)}
    if not mirror.start(run_id, name, config, job_type="report"):
        return before, False
    tables = {"report": (NUMBERS, _numbers(evidence)), "claims": (CLAIMS, _claims(evidence))}
    mirror.report(tables, sorted(report.with_suffix("").glob("*.png")))
    return before, mirror.mode != "disabled"


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
            claim.panel.name if claim.panel else "together",
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
