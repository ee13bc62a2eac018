"""`weightaug dom` from its arguments to its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from benchmarks.cell import Cell
from benchmarks.config import load
from benchmarks.cost.dom import NETWORKS, described, network_savings
from benchmarks.cost.trade_off import TradeOff, check_budgets, split, trade_off, train, with_shadows
from benchmarks.errors import UserError
from benchmarks.reports.dom import Findings, terminal_tables, write_report
from benchmarks.results.provenance import command_line, commit, hardware, versions
from benchmarks.runtime import Runtime
from benchmarks.terminal import console, note
from benchmarks.training.trainer import build

Number = TypeVar("Number", int, float)
METHOD = ("method=was", "method.transform=shift")
SEARCHED = ("model=resnet_tiny_was", "recipe=was_smoke")
"""What is trained and searched if the person says nothing else: seconds on a CPU."""


@dataclass(frozen=True)
class DomRequest:
    """What the command is asked for."""

    networks: tuple[str, ...]
    batches: tuple[int, ...]
    rounds: int
    budgets: tuple[float, ...]
    cell: Cell
    runtime: Runtime
    reports: Path

    @classmethod
    def parse(
        cls,
        networks: Sequence[str] | None,
        batches: str,
        rounds: int,
        budgets: str,
        overrides: Sequence[str],
        reports: str,
    ) -> DomRequest:
        sizes = _numbers(int, "--batches", batches, "whole numbers with commas between them, such as 1,128")
        shares = _numbers(float, "--budgets", budgets, "numbers with commas between them, such as 0.7,0.8")
        if min(sizes) < 1 or rounds < 0:
            raise UserError("--batches must be at least 1 and --rounds at least 0")
        for share in shares:
            if not 0 <= share <= 1:
                raise UserError(
                    f"--budgets {share:g}: a share of the network's FLOPs is from 0 to 1, e.g. 0.8"
                )
        method = () if any(text.startswith("method=") for text in overrides) else METHOD
        cell, runtime = load([*method, *SEARCHED, *overrides])
        return cls(tuple(networks or NETWORKS), sizes, rounds, shares, cell, runtime, Path(reports))


def _numbers(kind: Callable[[str], Number], option: str, text: str, wanted: str) -> tuple[Number, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"{option} {text!r}: give {wanted}") from error


def dom(request: DomRequest) -> int:
    """Measure, print the tables and write the report; returns the exit code."""
    device = request.runtime.resolve_device()
    if request.runtime.threads:
        torch.set_num_threads(request.runtime.threads)
    devices = ["cpu", device] if request.runtime.device == "auto" and device != "cpu" else [device]
    for text in request.networks:
        described(text)  # a network that can't be built is told before anything is trained
    searched = search(request, device)
    networks = [
        network_savings(text, request.batches, request.rounds, devices, note) for text in request.networks
    ]
    revision, dirty = commit()
    findings = Findings(
        networks=tuple(networks),
        trade_off=searched,
        cell=request.cell.label,
        provenance={
            "commit": f"{revision}{' and changes' if dirty else ''}" if revision else "unknown",
            "device": ", ".join(devices),
            "hardware": hardware(device),
            "threads": torch.get_num_threads(),
            "versions": versions(),
        },
        command=command_line(),
    )
    shown = console()
    for table in terminal_tables(findings):
        shown.print(table)
    print(f"report: {write_report(findings, request.reports / 'dom')}")
    return 0


def search(request: DomRequest, device: str) -> TradeOff:
    """Train the request's cell on a part of its training images and search on another."""
    cell, source = request.cell, request.cell.dataset.build()
    missing = None if request.runtime.download else source.missing(request.runtime.data_folder)
    if missing:
        raise UserError(missing)
    data = source.load(request.runtime.data_folder, request.runtime.download).to(device)
    parts = split(data, cell.seed)
    untrained = with_shadows(build(cell, source, "cpu", data)[1])
    check_budgets(untrained, tuple(data.train.images.shape[1:]), request.budgets)
    note(f"training {cell.label}")
    method = train(cell, source, parts, device)
    note(f"searching draws for {', '.join(f'{budget:g}' for budget in request.budgets)} of the FLOPs")
    return trade_off(method, parts, request.budgets, cell.recipe.batch_size)
