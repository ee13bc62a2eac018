"""`weightaug corrupt`: a corrupted copy of a folder of images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.errors import UserError, unknown_name

if TYPE_CHECKING:
    from benchmarks.data.corruptions.folder import Outcome
    from benchmarks.data.corruptions.manifest import Settings

HELP = "a corrupted copy of a folder of images, with a manifest; goes on where it was stopped"
FORMATS = ("png", "jpeg")
LISTED = 20  # failed images that are named on the terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", metavar="FOLDER", required=True, help="images, in class folders or not")
    parser.add_argument(
        "--out", metavar="FOLDER", required=True, help="gets TYPE/SEVERITY/PATH and manifest.jsonl"
    )
    parser.add_argument(
        "--table", default="imagenet", help="what a severity means: a file of configs/corruption"
    )
    parser.add_argument("--types", nargs="+", metavar="TYPE", help="all of the table by default")
    parser.add_argument(
        "--severities", nargs="+", type=int, default=[1, 2, 3, 4, 5], metavar="S", help="1 to 5"
    )
    parser.add_argument("--seed", type=int, default=0, help="other random numbers for all images")
    parser.add_argument(
        "--size", type=int, help="first scale the shorter side to SIZE and cut out the middle square"
    )
    parser.add_argument("--format", default="png", help="png (lossless) or jpeg")
    parser.add_argument("--quality", type=int, help="of jpeg; 85, as in the published sets, by default")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def run(options: argparse.Namespace) -> int:
    from benchmarks.data.corruptions.folder import make_copy
    from benchmarks.data.image_folder import named
    from benchmarks.runtime import Runtime

    device = Runtime(device=options.device).resolve_device()
    settings, types = _settings(options)
    source, out = Path(options.source), Path(options.out)
    steps = make_copy(source, out, settings, types, sorted(set(options.severities)), device)
    outcome = _followed(steps)
    print(f"{outcome.made} files made, {outcome.found} were there already, in {out}")
    if outcome.changed:
        print(f"{len(outcome.changed)} images have changed since they were copied: {named(outcome.changed)}")
    if outcome.others:
        print(
            f"{len(outcome.others)} files of {source} are no images by their name and were left out: "
            f"{named(outcome.others)}"
        )
    if not outcome.failed:
        return 0
    print(f"weightaug: {len(outcome.failed)} images could not be used:", file=sys.stderr)
    for image, why in sorted(outcome.failed.items())[:LISTED]:
        print(f"  {image}: {why}", file=sys.stderr)
    if len(outcome.failed) > LISTED:
        print(f"  ... and {len(outcome.failed) - LISTED} more", file=sys.stderr)
    return 1


def _settings(options: argparse.Namespace) -> tuple[Settings, list[str]]:
    """The checked settings, and the types to make."""
    from benchmarks.data.corruptions import SEVERITIES, read_table, without_missing
    from benchmarks.data.corruptions.manifest import Settings
    from benchmarks.data.corruptions.pictures import JPEG_QUALITY
    from benchmarks.data.corruptions.weather import FROST_MISSING

    table = read_table(options.table)
    for name in options.types or ():
        if name not in table:
            raise unknown_name(f"type of the table {options.table!r}:", name, table)
    if not set(options.severities) <= set(SEVERITIES):
        raise UserError(f"--severities {options.severities}: whole numbers from 1 to {SEVERITIES[-1]}")
    if options.format not in FORMATS:
        raise unknown_name("format", options.format, FORMATS)
    if options.size is not None and options.size < 1:
        raise UserError(f"--size {options.size}: must be at least 1 pixel")
    quality = JPEG_QUALITY if options.quality is None else options.quality
    if options.quality is not None and options.format != "jpeg":
        raise UserError("--quality goes with --format jpeg; png is lossless")
    if not 1 <= quality <= 95:
        raise UserError(f"--quality {quality}: from 1 to 95")
    wanted = {name: table[name] for name in options.types or table}
    types = list(wanted) if options.types is None else list(dict.fromkeys(options.types))
    present = without_missing(wanted) if options.types is None else wanted
    types = [name for name in types if name in present]
    if "frost" in types:
        from benchmarks.data.corruptions.weather import photograph_folder

        if photograph_folder() is None:
            raise UserError(FROST_MISSING)
    settings = Settings(
        table=options.table,
        seed=options.seed,
        size=options.size,
        format=options.format,
        quality=quality if options.format == "jpeg" else None,
        parameters=table,
    )
    return settings, types


def _followed(steps: Iterator[tuple[int, int, Outcome]]) -> Outcome:
    """Run the steps with a bar on a terminal, or a line at every tenth of the way."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    told = 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("corrupting", total=None)
        for settled, total, latest in steps:
            outcome = latest
            bar.update(task, completed=settled, total=total)
            if not console.is_terminal and 10 * settled // total > told:
                told = 10 * settled // total
                print(f"{settled} of {total} files", file=sys.stderr, flush=True)
    return outcome
