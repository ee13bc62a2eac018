"""Claims: published statements that can be true or false, as data.

Every claim is judged on each panel by itself, but for a :class:`StatedNumber` that is taken over several panels. How:
``docs/verdicts.md`` and :mod:`benchmarks.reports.verdicts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from benchmarks.errors import UserError, unknown_name
from benchmarks.reports.measures import check_metric
from benchmarks.typed import build

EACH, MEAN, HIGHEST = "each", "mean", "highest"
OVER = (EACH, MEAN, HIGHEST)
ALL_TYPES = "type.*."
"""Starts a metric that stands for one metric for each corruption type that was measured."""
COLUMN = "column."
"""Starts a metric that is what stands in a column of the table, such as a mean of columns."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What all kinds have. ``panels``: names or patterns (``*-cifar10``) of those it is about; empty: all."""

    kind: ClassVar[str]
    plural: ClassVar[str]
    name: str
    text: str
    source: str  # where in the paper
    panels: tuple[str, ...] = ()
    stated: int = 0  # how many measures it has at full scale, where a scale has only some of them

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows that it speaks of."""
        raise NotImplementedError

    @property
    def metrics(self) -> tuple[str, ...]:
        """What it compares them by."""
        raise NotImplementedError

    def with_metrics(self, metrics: tuple[str, ...]) -> Claim:
        """The claim with other metrics, in the order of ``metrics``."""
        return replace(self, stated=len(self.metrics), metric=metrics[0])  # type: ignore[call-arg]  # every kind has one or more

    def is_about(self, panel: str) -> bool:
        """Whether it says something of ``panel``."""
        return not self.panels or any(fnmatchcase(panel, pattern) for pattern in self.panels)

    def metrics_in(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Its metrics without those of columns that are not among ``columns``."""
        return tuple(
            metric
            for metric in self.metrics
            if not metric.startswith(COLUMN) or metric.removeprefix(COLUMN) in columns
        )

    def check(self, where: str, columns: Sequence[str]) -> None:
        """Raise a :class:`UserError` for what the types cannot say; ``columns``: the table's."""
        for metric in self.metrics:
            if not metric.startswith(COLUMN):
                check_metric(metric, where)
            elif metric.removeprefix(COLUMN) not in columns:
                raise unknown_name(f"column in {where}:", metric.removeprefix(COLUMN), columns)


@dataclass(frozen=True, kw_only=True)
class Ordering(Claim):
    """``lower`` lies below every row of ``higher`` in every metric of ``metric``.

    ``most``: in more than half of these comparisons, not in every one.
    """

    kind = "ordering"
    plural = "orderings"
    metric: tuple[str, ...]
    lower: str
    higher: tuple[str, ...]
    most: bool = False

    @property
    def rows(self) -> tuple[str, ...]:
        return (self.lower, *self.higher)

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.metric

    def with_metrics(self, metrics: tuple[str, ...]) -> Ordering:
        return replace(self, stated=len(self.metrics), metric=metrics)


@dataclass(frozen=True, kw_only=True)
class Ratio(Claim):
    """numerator / denominator is ``expected``, give or take ``margin``."""

    kind = "ratio"
    plural = "ratios"
    metric: str
    numerator: str
    denominator: str
    expected: float
    margin: float

    @property
    def rows(self) -> tuple[str, ...]:
        return self.numerator, self.denominator

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)


@dataclass(frozen=True, kw_only=True)
class StatedNumber(Claim):
    """The metric of ``row``, less that of ``minus`` where there is one, is ``expected``, give or take ``margin``.

    ``over``: on ``each`` panel, the ``mean`` over the panels and rows, or the ``highest`` of them. ``mismatch``: why
    it is not what the paper measured, at any scale; empty: it is.
    """

    kind = "number"
    plural = "stated numbers"
    metric: str
    row: tuple[str, ...]
    expected: float
    margin: float
    minus: str | None = None
    over: str = EACH
    unit: str = "%"
    mismatch: str = ""

    @property
    def rows(self) -> tuple[str, ...]:
        return self.row if self.minus is None else (*self.row, self.minus)

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)

    def check(self, where: str, columns: Sequence[str]) -> None:
        super().check(where, columns)
        if self.over not in OVER:
            raise unknown_name(f"value of over in {where}:", self.over, OVER)
        if len(self.row) > 1 and self.over == EACH:
            raise UserError(f"{where}: several rows need over: {MEAN} or over: {HIGHEST}")


CLAIMS: dict[str, type[Ordering] | type[Ratio] | type[StatedNumber]] = {
    cls.kind: cls for cls in (Ordering, Ratio, StatedNumber)
}
LISTS = {"ordering": ("metric", "higher"), "number": ("row",)}
"""Keys that may be a single name where the claim has several."""


def read_claim(raw: Any, where: str) -> Claim:
    """A claim from what its table's file says of it."""
    if not isinstance(raw, Mapping) or "kind" not in raw:
        raise UserError(f"{where} needs a kind: {' or '.join(CLAIMS)}")
    kind = str(raw["kind"])
    if kind not in CLAIMS:
        raise unknown_name(f"kind in {where}:", kind, CLAIMS)
    content = {key: value for key, value in raw.items() if key != "kind"}
    for key in LISTS.get(kind, ()):
        if isinstance(content.get(key), str):
            content[key] = [content[key]]
    return build(CLAIMS[kind], content, where)
