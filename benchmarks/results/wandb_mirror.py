"""The W&B mirror: every cell is a run there. The card is the truth; a failure here is a warning, never an error."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
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

    def start(self, run_id: str, name: str, config: dict[str, Any], job_type: str = "cell") -> bool:
        """Begin a run, or go on with the one of this id where W&B is online; whether there is one now."""
        if self.mode == "disabled":
            return False
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
                dir=str(self.folder.resolve()),  # W&B's own process stays in the folder it began in
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
        return self._run is not None

    def _check_account(self) -> None:
        """W&B would ask for a key at the terminal; say how to give one and log offline instead."""
        import wandb

        if self.mode == "online" and not wandb.login(prompt=False):
            warn(
                "W&B: no account is set up (WANDB_API_KEY or `wandb login`); logging offline, see `wandb sync`"
            )
            self.mode = "offline"

    def epoch(self, entry: dict[str, Any]) -> None:
        """One point of the training curves, unless the run has it from before."""
        if self._run is not None and entry["epoch"] >= self._run.starting_step:
            self._try(lambda: self._run.log({f"train/{k}": v for k, v in entry.items()}, step=entry["epoch"]))

    def finish(self, card: Card) -> None:
        """The final metrics, and a table of all errors by corruption and severity, unless the run has that."""
        if self._run is None:
            return

        def end() -> None:
            import wandb

            summary, rows = _measurements(card)
            known = self._run.resumed and self._run.summary.get("errors") is not None
            self._run.summary.update(summary)
            if not known:
                columns: list[str | int] = ["mode", "corruption", "severity", "error"]
                self._run.log({"errors": wandb.Table(columns=columns, data=rows)})
            self._run.finish()

        self._try(end)

    def report(
        self, tables: Mapping[str, tuple[list[str], list[list[Any]]]], images: Sequence[Path] = ()
    ) -> None:
        """A report's tables, by name as (columns, rows), and its plots; the last thing of a run."""
        if self._run is None:
            return

        def log() -> None:
            import wandb

            if not self._run.resumed:  # the run's id names its content, so there is nothing to change
                content: dict[str, Any] = {
                    name: wandb.Table(columns=[*columns], data=rows)
                    for name, (columns, rows) in tables.items()
                }
                self._run.log(content | {path.stem: wandb.Image(str(path)) for path in images})
            self._run.finish()

        self._try(log)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever it is, the cell goes on
            warn(f"W&B: {one_line(error)}; the card is complete without it")
            self._run, self.mode = None, "disabled"


def mirror_card(mirror: Mirror, card: Card, name: str) -> bool:
    """All that a run shows of a finished cell, from its card alone; whether it was sent."""
    started = mirror.start(card["id"], name, card["cell"])
    for entry in card["curve"]:
        mirror.epoch(entry)
    mirror.finish(card)
    return started and mirror.mode != "disabled"


def _measurements(card: Card) -> tuple[dict[str, Any], list[list[Any]]]:
    """The run's summary, and the rows of its table of errors."""
    summary = {"status": card["status"], **{f"cost/{k}": v for k, v in card["cost"].items() if _scalar(v)}}
    rows = []
    for mode, metrics in (card["metrics"] or {}).items():
        summary |= {f"{mode}/clean/{key}": value for key, value in metrics["clean"].items()}
        for group in ("attacks", "shifted"):
            for name, values in metrics.get(group, {}).items():
                summary |= {f"{mode}/{name}/{key}": value for key, value in values.items()}
        rows.append([mode, "none", 0, metrics["clean"]["error"]])
        for name, values in metrics["corrupted"].items():
            rows += [[mode, name, severity, error] for severity, error in enumerate(values["error"], 1)]
    return summary, rows


def _scalar(value: Any) -> bool:
    return isinstance(value, int | float | str)
