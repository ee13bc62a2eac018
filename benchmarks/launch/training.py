"""The training of a cell: with checkpoints and a watchdog, and with advice when the memory does not suffice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.data.batches import epoch_batches
from benchmarks.errors import PassingError, one_line
from benchmarks.memory import is_out_of_memory, release
from benchmarks.training.sharing import Shareable
from benchmarks.training.trainer import EpochHook, Progress, Trainer
from benchmarks.training.watchdog import Watchdog


def train(trainer: Trainer, work: Path, every: float, after_epoch: EpochHook) -> Progress:
    """Train to the end, continuing from the checkpoint in the cell's folder ``work``.

    Args:
        every: seconds between checkpoints.

    Raises:
        PassingError: out of memory; the line names a setting that would fit.
    """
    cell = trainer.cell
    watchdog = Watchdog(f"cell {cell.id} ({cell.label})", work / "stuck.txt")
    try:
        return trainer.run(work / "checkpoint.pt", every, after_epoch, watchdog)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        said = one_line(error)
    release()  # here, as the error keeps alive what the step had made
    raise PassingError(f"out of memory in training ({said}); {_advice(trainer)}")


def _advice(trainer: Trainer) -> str:
    """Settings that need less memory; what is said to fit has been tried."""
    recipe = trainer.cell.recipe
    fits = _fitting_batch(trainer) if trainer.sharing.count == 1 else None
    others = [] if fits is None else [f"recipe.batch_size={fits} fits"]
    others += ["recipe.precision=bf16 takes less"] * (recipe.precision == "float32")
    same = "device=cpu" if trainer.device != "cpu" else "a machine with more memory"
    eager = "engine=eager, " if trainer.asked != "eager" else ""
    parts = f"accumulate={2 * trainer.accumulate}, " if _divides_further(trainer) else ""
    advice = f"free the device of other work (workers=1), or use {parts}{eager}{same}, for the same cell"
    return advice + (f"; another cell: {', '.join(others)}" if others else "")


def _divides_further(trainer: Trainer) -> bool:
    """Whether the batch may be run in twice as many parts."""
    batches = Shareable.of(trainer.cell, trainer.method, len(trainer.data.train))
    return batches.refusal(trainer.processes.count, 2 * trainer.accumulate) is None


def _fitting_batch(trainer: Trainer) -> int | None:
    """The largest half, quarter, ... of the batch with which a step succeeds here; None where there is none."""
    cell, source, data, device = trainer.cell, trainer.source, trainer.data, trainer.device
    least = int(cell.method.arguments.get("sub_batches", 1))
    size = cell.recipe.batch_size // 2
    trainer.optimizer.state.clear()  # not needed any more, and as large as the model
    trainer.model.to("cpu").zero_grad()
    while size >= least:
        recipe = replace(cell.recipe, batch_size=size)
        try:
            smaller = Trainer(replace(cell, recipe=recipe), source, data, device)
            smaller.step(*next(epoch_batches(data, recipe, cell.seed, 0, source.num_classes)))
            return size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        release()
        size //= 2
    return None
