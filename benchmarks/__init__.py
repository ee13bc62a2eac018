"""The harness: data, models, training, evaluation, cost, results, tables, reports, command line.

``benchmarks.load("3f2a91")`` gives a trained cell's model back, see :func:`benchmarks.export.trained.load`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.export.trained import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """``load``, imported when it is first used: the command line must start without torch."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from benchmarks.export.trained import load

    return load
