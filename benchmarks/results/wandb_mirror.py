"""The W&B mirror: every cell is a run there. The card is the truth; a failure here is a warning, never an error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from benchmarks.errors import one_line
from benchmarks.results.card import Card
from benchmarks.terminal import warn

PROJECT = "weightaug"


class Mirror:
    """Mirrors one cell. Does nothing when disabled, and nothing more after the first failure.

    Args:
        mode: online, offline or disabled. Online without an account falls back to offline: W&B never asks.
        folder: where offline runs are written (below ``wandb/``).
        group: the table the cell belongs to.
    """

    unreachable: ClassVar[bool] = False
    """Whether W&B could not be reached once; this process then stays offline and does not wait again."""

    def __init__(self, mode: str, folder: Path, group: str) -> None:
        self.mode = "offline" if mode == "online" and Mirror.unreachable else mode
        self.folder, self.group = folder, group
        self._run: Any = None

    def start(self, run_id: str, name: str, config: dict[str, Any], job_type: str = "cell") -> None:
        if self.mode == "disabled":
            return
        mode = self.mode

        def begin() -> None:
            os.environ.setdefault("WANDB_SILENT", "true")
            import wandb

            self._check_account()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._run = wandb.init(
                project=PROJECT,
                group=self.group,
                job_type=job_type,
                id=run_id,
                name=name,
                config=config,
                dir=str(self.folder),
                mode=cast(Literal["online", "offline"], self.mode),
                resume="allow" if self.mode == "online" else None,
                reinit="finish_previous",
                settings=wandb.Settings(
                    console="off", x_disable_stats=True, init_timeout=30, finish_timeout=60
                ),
            )

        self._try(begin)
        if self._run is None and mode == "online":
            Mirror.unreachable, self.mode = True, "offline"
            self._try(begin)

    def _check_account(self) -> None:
        """W&B would ask for a key at the terminal; say how to give one and log offline instead."""
        import wandb

        if self.mode == "online" and not wandb.login(prompt=False):
            warn(
                "W&B: no account is set up (WANDB_API_KEY or `wandb login`); logging offline, see `wandb sync`"
            )
            self.mode = "offline"

    def epoch(self, entry: dict[str, Any]) -> None:
        """One point of the training curves."""
        if self._run is not None:
            self._try(lambda: self._run.log({f"train/{k}": v for k, v in entry.items()}, step=entry["epoch"]))

    def finish(self, card: Card) -> None:
        """The final metrics, and a table of all errors by corruption and severity."""
        if self._run is None:
            return

        def end() -> None:
            import wandb

            summary = {
                "status": card["status"],
                **{f"cost/{k}": v for k, v in card["cost"].items() if _scalar(v)},
            }
            rows = []
            for mode, metrics in (card["metrics"] or {}).items():
                summary |= {f"{mode}/clean/{key}": value for key, value in metrics["clean"].items()}
                for group in ("attacks", "shifted"):
                    for name, values in metrics.get(group, {}).items():
                        summary |= {f"{mode}/{name}/{key}": value for key, value in values.items()}
                rows.append([mode, "none", 0, metrics["clean"]["error"]])
                for name, values in metrics["corrupted"].items():
                    rows += [
                        [mode, name, severity, error] for severity, error in enumerate(values["error"], 1)
                    ]
            self._run.summary.update(summary)
            self._run.log(
                {"errors": wandb.Table(columns=["mode", "corruption", "severity", "error"], data=rows)}
            )
            self._run.finish()

        self._try(end)

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        """One table, such as a report's, as the last thing of a run."""
        if self._run is None:
            return

        def log() -> None:
            import wandb

            self._run.log({name: wandb.Table(columns=[*columns], data=rows)})
            self._run.finish()

        self._try(log)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever it is, the cell goes on
            warn(f"W&B: {one_line(error)}; the card is complete without it")
            self._run, self.mode = None, "disabled"


def _scalar(value: Any) -> bool:
    return isinstance(value, int | float | str)
