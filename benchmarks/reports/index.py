"""``reports/README.md``: all reports with what they found, from the summaries that lie beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.errors import UserError
from benchmarks.markdown import template
from benchmarks.reports.evidence import Evidence
from benchmarks.reports.headline import sentence
from benchmarks.reports.sections import Grid
from benchmarks.reports.text import flat, literal
from benchmarks.results.files import write_text

SUMMARY = "summary.json"
SCALES = ("full", "reduced", "smoke")


def summary(evidence: Evidence) -> dict[str, Any]:
    """What the index tells of a report, and who reads it with a program."""
    sources = [card["provenance"] for card in evidence.cards]
    machines = {flat(_machine(source.get("hardware", {}))) for source in sources}
    finished = sorted(source["finished"] for source in sources if source.get("finished"))
    return {
        "table": evidence.table.name,
        "title": evidence.table.title,
        "scale": evidence.scale.name,
        "verdict": sentence(evidence),
        "runs": len(sources),
        "trained": finished[-1][:10] if finished else None,
        "hardware": sorted(machines),
    }


def _machine(hardware: dict[str, Any]) -> str:
    return str(hardware.get("gpu") or hardware.get("processor") or "not recorded")


def write_index(reports: Path) -> Path:
    """Write ``README.md`` in the folder of all reports; return its path."""
    if not reports.is_dir():
        raise UserError(f"there is no folder of reports {reports}; say where it is with --reports")
    path = reports / "README.md"
    write_text(path, index(reports))
    return path


def index(reports: Path) -> str:
    """The text of the index."""
    found = {path.parent: json.loads(path.read_text("utf-8")) for path in reports.glob(f"*/*/{SUMMARY}")}
    scales = {folder.parent.name for folder in found}
    ordered = [*(s for s in SCALES if s in scales), *sorted(scales.difference(SCALES))]
    others = [
        path
        for path in sorted([*reports.glob("*.md"), *reports.glob("*/*.md")])
        if path.name != "README.md" and path.with_suffix("") not in found
    ]
    return template("reports", "index.md.j2").render(
        scales=[
            (scale, _grid([f for f in sorted(found) if f.parent.name == scale], found)) for scale in ordered
        ],
        others=[(path.relative_to(reports).as_posix(), _heading(path)) for path in others],
    )


def _grid(folders: list[Path], found: dict[Path, dict[str, Any]]) -> Grid:
    rows = []
    for folder in folders:
        told, place = found[folder], f"{folder.parent.name}/{folder.name}"
        rows.append(
            [
                f"[{literal(told['title'])}]({place}.md) ([page]({place}.html))",
                literal(told["verdict"]),
                told["trained"] or "–",
                literal(", ".join(told["hardware"])),
            ]
        )
    return Grid(["Table", "What was found", "trained until", "on"], rows)


def _heading(path: Path) -> str:
    lines = path.read_text("utf-8").splitlines()
    return next((line.removeprefix("# ") for line in lines if line.startswith("# ")), path.stem)
