"""What W&B's offline runs hold, read back from their transaction logs."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.results.card import Card

HEADER, BLOCK, PIECE = 7, 32768, 7  # bytes


def runs_of(folder: Path, run_id: str) -> list[Path]:
    """The folders of the offline runs with this id below ``folder``, the card store."""
    return sorted((folder / "wandb").glob(f"offline-run-*-{run_id}"))


def holds_report(run: Path) -> bool:
    """Whether an offline run came to its end with a report's table."""
    logged = read_run(run)
    return logged["finished"] and "report._type" in logged["summary"]


def holds_card(run: Path, card: Card) -> bool:
    """Whether an offline run came to its end with all epochs of the card and its table of errors."""
    logged = read_run(run)
    epochs = {row["train/epoch"] for row in logged["history"] if "train/epoch" in row}
    whole = epochs >= {entry["epoch"] for entry in card["curve"]}
    return logged["finished"] and whole and "errors._type" in logged["summary"]


def read_run(run: Path) -> dict[str, Any]:
    """``id``, ``group``, ``job_type``, ``config``, ``history``, ``summary`` of an offline run, and ``finished``.

    Keys of the summary have their parts joined by dots. A log that was cut off gives what is before the cut.
    """
    from wandb.proto import wandb_internal_pb2

    found: dict[str, Any] = {"history": [], "summary": {}, "config": {}, "finished": False}
    for data in (record for log in sorted(run.glob("*.wandb")) for record in _records(log.read_bytes())):
        record: Any = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"id": record.run.run_id, "group": record.run.run_group, "job_type": record.run.job_type}
            found["config"] |= _values(record.run.config.update)
        elif kind == "history":
            found["history"].append(_values(record.history.item))
        elif kind == "summary":
            found["summary"] |= _values(record.summary.update)
        elif kind == "exit":
            found["finished"] = True
    return found


def _values(items: Any) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format: blocks of 32 KiB, pieces with checksum, length and kind."""
    position, record, (full, first, _, last) = HEADER, b"", (1, 2, 3, 4)
    while position + PIECE <= len(data):
        if BLOCK - position % BLOCK < PIECE:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + PIECE])
        piece = data[position + PIECE : position + PIECE + length]
        if len(piece) < length:
            return
        record = piece if kind in (full, first) else record + piece
        if kind in (full, last):
            yield record
        position += PIECE + length
