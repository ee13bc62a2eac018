"""What the person sees while a table runs: a bar with the time left, or plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.cell import Cell
from benchmarks.results.store import Store

POLL_SECONDS = 0.5
SECONDS_A_CELL = 1e-4
"""Of waiting between two looks at a store: looking at a large one costs more."""


class Watch:
    """Follows the cells of a table in the store until ``running`` says that nobody works any more."""

    def __init__(self, cells: Sequence[Cell], store: Store) -> None:
        self.cells, self.store = cells, store
        finished = store.finished()
        self.done = {cell.id for cell in cells if cell.id in finished}
        self.failed: dict[str, str] = {}
        self._poll = max(POLL_SECONDS, SECONDS_A_CELL * len(cells))
        self._weight = {cell.id: float(cell.recipe.total_epochs) for cell in cells}
        self._begun = time.monotonic()
        self._before = self._units()
        self.console = Console(stderr=True)

    def follow(self, running: Callable[[], bool]) -> None:
        if self.console.is_terminal:
            self._follow_bar(running)
        else:
            self._follow_lines(running)

    def _follow_bar(self, running: Callable[[], bool]) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("cells,"),
            TimeElapsedColumn(),
            TextColumn("gone,"),
            TextColumn("{task.fields[left]} left"),
        )
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task("training", total=len(self.cells), left="?", completed=len(self.done))
            while True:
                going = running()
                for cell in self._news():
                    bar.console.print(self._line(cell), highlight=False)
                bar.update(task, completed=len(self.done), left=self._left())
                if not going:
                    return
                time.sleep(self._poll)

    def _follow_lines(self, running: Callable[[], bool]) -> None:
        while True:
            going = running()
            for cell in self._news():
                print(f"{self._line(cell)}; {self._left()} left", file=sys.stderr, flush=True)
            if not going:
                return
            time.sleep(self._poll)

    def _news(self) -> Iterator[Cell]:
        """Cells that were finished or given up since the last look."""
        begun = self.store.begun()  # looked at first: what is in neither is just being finished
        finished = self.store.finished()
        for cell in self.cells:
            if cell.id in self.done or cell.id in self.failed:
                continue
            if cell.id in finished:
                self.done.add(cell.id)
            elif cell.id in begun and (error := self.store.failures.given_up(cell.id)):
                self.failed[cell.id] = error
            else:
                continue
            yield cell

    def _line(self, cell: Cell) -> str:
        position = f"[{len(self.done) + len(self.failed)}/{len(self.cells)}] {cell.label}"
        if cell.id in self.failed:
            return f"{position}: FAILED: {self.failed[cell.id]}"
        card = self.store.read(cell.id, cell)
        if card is None or card["metrics"] is None:
            return f"{position}: diverged"
        modes = [f"{name} {metrics['clean']['error']:.2f} %" for name, metrics in card["metrics"].items()]
        seconds = card["cost"]["training_seconds"]
        return f"{position}: clean error {', '.join(modes)}, {seconds:.1f} s of training"

    def _units(self) -> float:
        """Epochs done, those of running cells included."""
        settled = sum(self._weight[cell_id] for cell_id in {*self.done, *self.failed})
        begun = self.store.begun()
        running = sum(
            self._weight[cell.id] * self.store.heartbeat(cell.id).get("fraction", 0.0)
            for cell in self.cells
            if cell.id in begun and cell.id not in self.done and cell.id not in self.failed
        )
        return settled + running

    def _left(self) -> str:
        gone, total = self._units(), sum(self._weight.values())
        rate = (gone - self._before) / max(time.monotonic() - self._begun, 1e-9)
        if gone >= total:
            return "0 s"
        if rate <= 0:
            return "?"
        seconds = round((total - gone) / rate)
        return f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"
