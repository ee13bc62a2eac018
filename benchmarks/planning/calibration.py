"""What was measured on one machine, kept beside the cards of a store: read by plans and by ``workers=0``.

    <store>/calibration/<machine>.json    one file a machine: its GPU or processor, its cores, torch's version

A later calibration replaces the kinds of cells that it measures and keeps the others.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.errors import one_line
from benchmarks.planning.kinds import Kind, Workload
from benchmarks.planning.memory import Memory
from benchmarks.planning.need import Need
from benchmarks.planning.packing import Level, Packing
from benchmarks.results.files import write_json
from benchmarks.results.provenance import hardware, machine, versions
from benchmarks.terminal import warn

SCHEMA = 1


@dataclass(frozen=True)
class Figures:
    """A kind of cells on the machine, one at a time with all of the CPU threads."""

    label: str
    method: str  # Kind.method_key
    batch: int  # images in a step as it was measured; less than the kind's where that was too much for the machine
    step_seconds: float  # of a step on the kind's whole batch
    evaluated_per_second: float  # images, forwards
    start_seconds: float  # until the first step was done: building, compiling
    memory_bytes: float | None  # at the peak, as measured with ``batch``; None where the system does not tell
    computed: Memory  # without the images that are held on the device
    engine: str  # that ran
    flops: float  # of a step on the whole batch
    evaluation_flops: float  # of one image
    derived_from: str = (
        ""  # the label of the measured kind whose times stand here, in proportion to the FLOPs
    )

    def cell_seconds(self, work: Workload, devices: int = 1) -> float:
        """A whole cell by itself. On several devices, whose work this is, steps are at best as many times as fast."""
        training = work.steps * self.step_seconds / devices
        return self.start_seconds + training + work.evaluated / self.evaluated_per_second


@dataclass(frozen=True)
class Calibration:
    """Everything that is known of one machine."""

    machine: list[Any]  # see benchmarks.results.provenance.machine
    torch: str
    created: str  # UTC, ISO 8601
    worker_seconds: float  # from the start of a worker process until it can work
    worker_bytes: float  # resident memory of one before its first cell
    kinds: dict[str, Figures] = field(default_factory=dict)  # by Kind.key
    packings: dict[str, Packing] = field(default_factory=dict)  # likewise

    @property
    def measured(self) -> set[str]:
        """Which kinds were, by their keys."""
        return {key for key, figures in self.kinds.items() if not figures.derived_from}

    def nearest(self, method: str, flops: float) -> Figures | None:
        """What to derive a kind's times from: of the same method, else of any, the measured one nearest in FLOPs."""
        measured = [kind for kind in self.kinds.values() if not kind.derived_from]
        of_method = [kind for kind in measured if kind.method == method]
        return min(of_method or measured, key=lambda kind: abs(math.log(kind.flops / flops)), default=None)

    def derived(self, kind: Kind, need: Need) -> Figures | None:
        """Figures of a kind that was not measured; None where nothing was."""
        near = self.nearest(kind.method_key, need.step_flops)
        if near is None:
            return None
        return replace(
            near,
            label=kind.label,
            method=kind.method_key,
            batch=kind.cell.recipe.batch_size,
            step_seconds=near.step_seconds * need.step_flops / near.flops,
            evaluated_per_second=near.evaluated_per_second * near.evaluation_flops / need.image_flops,
            memory_bytes=None,
            computed=need.memory,
            flops=need.step_flops,
            evaluation_flops=need.image_flops,
            derived_from=near.label,
        )

    def with_later(self, later: Calibration) -> Calibration:
        """All that is known of both; what is derived takes no measurement's place."""
        kinds, packings = {**self.kinds, **later.kinds}, {**self.packings, **later.packings}
        for key, figures in self.kinds.items():
            if kinds[key].derived_from and not figures.derived_from:
                kinds[key] = figures
        return Calibration(**{**vars(later), "kinds": kinds, "packings": packings})


def path_of(store: Path, device: str) -> Path:
    """The file of this machine, with that device, in a store."""
    parts = [*map(str, here(device)), f"torch {versions()['torch']}"]
    return store / "calibration" / f"{re.sub('[^0-9A-Za-z.+]+', '-', ' '.join(parts)).strip('-')}.json"


def here(device: str) -> list[Any]:
    """What a calibration of this machine is of. A GPU's index does not matter."""
    found = machine({"device": device, "hardware": hardware(device)})
    cores = hardware(device)["cores"]
    return [*found] if cores in found else [*found, cores]


def read(store: Path, device: str) -> Calibration | None:
    """The calibration of this machine, or None; of a damaged file a warning."""
    return load(path_of(store, device))


def load(path: Path) -> Calibration | None:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.pop("schema") != SCHEMA:
            raise ValueError("it has another layout")
        return Calibration(**{
            **raw,
            "kinds": {key: _figures(kind) for key, kind in raw["kinds"].items()},
            "packings": {key: _packing(packing) for key, packing in raw["packings"].items()},
        })  # fmt: skip
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        warn(
            f"{path}: no calibration that can be read ({one_line(error)}); `weightaug calibrate` makes it anew"
        )
        return None


def _figures(raw: Mapping[str, Any]) -> Figures:
    return Figures(**{**raw, "computed": Memory(**raw["computed"])})


def _packing(raw: Mapping[str, Any]) -> Packing:
    levels = tuple(Level(**level) for level in raw["levels"])
    if not levels or min(level.workers for level in levels) < 1:
        raise ValueError("a packing without levels")
    return Packing(levels, str(raw["stopped"]))


def keep(store: Path, device: str, calibration: Calibration) -> Path:
    """Write it, with what is known of the machine already."""
    path = path_of(store, device)
    before = load(path)
    write_json(path, {"schema": SCHEMA, **asdict(before.with_later(calibration) if before else calibration)})
    return path
