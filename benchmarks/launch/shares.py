"""Whether every cell of a table can be trained on so many devices, before anything is looked for or made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import chain

from benchmarks.cell import Cell
from benchmarks.errors import UserError
from benchmarks.launch.request import Request
from benchmarks.launch.requirements import source_of
from benchmarks.runtime import Runtime
from benchmarks.training.sharing import Shareable, advice, asked_for


def check_shares(request: Request) -> None:
    """Raise a UserError that names the rows whose cells can't be shared as asked for, and what suits all cells."""
    devices, accumulate = request.runtime.devices, request.runtime.accumulate
    if devices * accumulate == 1:
        return
    known: dict[str, Shareable] = {}
    refused: dict[str, list[str]] = defaultdict(list)  # by reason, the cells' ids
    for cell_id in request.asked:
        cell = request.cells[cell_id]
        if cell.of_every_seed not in known:
            known[cell.of_every_seed] = shareable(cell, request.runtime)
        if reason := known[cell.of_every_seed].refusal(devices, accumulate):
            refused[reason].append(cell_id)
    if not refused:
        return
    reasons = [f"{_where(request, cells)}: {reason}" for reason, cells in refused.items()]
    suits = advice(list(known.values()), devices, accumulate)
    raise UserError(f"{'; '.join(reasons)}; {suits} for all of them{_rest(request, refused.values())}")


def shareable(cell: Cell, runtime: Runtime) -> Shareable:
    """What is known without the images; :func:`benchmarks.launch.run_cell.preflight` looks again with them."""
    from benchmarks.planning.kinds import Kind, training_images
    from benchmarks.planning.network import empty_model
    from benchmarks.training.trainer import build

    source = source_of(cell, runtime)
    try:
        model = empty_model(Kind.of(cell, source))
        method = cell.method.build({"source": source, "data": None}, model=model, seed=0)
    except UserError:  # a method that looks at the weights while it is built; or what is told again
        method = build(cell, source, "cpu")[1]
    return Shareable.of(cell, method, training_images(source) or cell.recipe.batch_size)


def _where(request: Request, cell_ids: list[str]) -> str:
    """The cells by their rows, and by their panels where those of other panels are not among them."""
    if len(cell_ids) == len(request.asked):
        return "every cell"
    (panels, rows), (all_panels, all_rows) = _places(request, cell_ids), _places(request, request.asked)
    named = [f"panel {', '.join(panels)}"] if panels != all_panels else []
    named += [f"row {', '.join(rows)}"] if rows != all_rows else []
    return ", ".join(named) or f"{len(cell_ids)} cells"


def _rest(request: Request, refused: Iterable[list[str]]) -> str:
    """How to train the rows or panels alone that can be shared as asked for, where there are any."""
    asked = asked_for(request.runtime.devices, request.runtime.accumulate).replace(" times", "")
    left, whole = _places(request, chain(*refused)), _places(request, request.asked)
    for key, some, every in reversed(list(zip(("panel", "row"), left, whole, strict=True))):
        if fine := [name for name in every if name not in some]:
            return f", or {asked} with --only {key}={','.join(fine)}"
    return ""


def _places(request: Request, cell_ids: Iterable[str]) -> tuple[list[str], list[str]]:
    """The panels and the rows that show one of the cells, in the table's order."""
    wanted = set(cell_ids)
    found = [position for position, cell_id in request.positions.items() if cell_id in wanted]
    return list(dict.fromkeys(panel for panel, _, _ in found)), list(
        dict.fromkeys(row for _, row, _ in found)
    )
