"""What W&B's offline runs hold, for tests that read them right after their end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.results import wandb_log

PATIENCE = 60.0  # seconds


def read_run(run: Path) -> dict[str, Any]:
    """As :func:`benchmarks.results.wandb_log.read_run`, when W&B's own process has written the log's end.

    It does so by itself, on a busy machine after the run has been told to be finished.
    """
    deadline = time.monotonic() + PATIENCE
    while not (found := wandb_log.read_run(run))["finished"] and time.monotonic() < deadline:
        time.sleep(0.1)
    return found
