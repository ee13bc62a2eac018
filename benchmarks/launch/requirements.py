"""What a cell needs of the machine besides Python: data, photographs, packages. Nothing is built or loaded here."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from benchmarks.cell import Cell
from benchmarks.data.corruptions.weather import FROST_MISSING, photograph_folder
from benchmarks.data.dataset import Source
from benchmarks.data.shifted import missing_shifted
from benchmarks.errors import UserError
from benchmarks.evaluation.attacks import check_installed
from benchmarks.runtime import Runtime

LIBRARIES = ("torchvision", "timm")
"""Those whose models go by ``library/name``."""


def source_of(cell: Cell, runtime: Runtime) -> Source:
    """The cell's data set, not loaded."""
    source: Source = cell.dataset.build({"cache": runtime.cache_folder})
    return source


def missing_data(cell: Cell, source: Source, runtime: Runtime) -> list[str]:
    """What of the cell's data is not there, one line for each set."""
    root = runtime.data_folder
    own = source.missing(root)
    return [*([own] if own else []), *missing_shifted(cell.evaluation.shifted, root)]


def missing(cells: Iterable[Cell], runtime: Runtime) -> list[str]:
    """All that these cells lack on this machine, each once."""
    found: dict[str, None] = {}
    seen: dict[str, Source] = {}
    for cell in cells:
        settings = str((cell.dataset, cell.evaluation, cell.model.title))
        if settings in seen:
            continue
        seen[settings] = source = source_of(cell, runtime)
        found |= dict.fromkeys(missing_data(cell, source, runtime))
        corruptions = source.corruptions if source.corrupted == "generated" else {}
        if cell.evaluation.corruptions and "frost" in corruptions and photograph_folder() is None:
            found[FROST_MISSING] = None
        library = cell.model.title.partition("/")[0]
        if "/" in cell.model.title and library in LIBRARIES and importlib.util.find_spec(library) is None:
            found[f"{cell.model.title} needs the package {library}: `pip install {library}`"] = None
        try:
            check_installed(cell.evaluation)
        except UserError as error:
            found[str(error)] = None
    return list(found)
