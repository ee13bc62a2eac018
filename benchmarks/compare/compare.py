"""From two sides to the comparison: groups of cells that differ in the seed alone, metric by metric."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from benchmarks.cell import flat, label_of
from benchmarks.compare.judge import Change, Judged, correct, judge
from benchmarks.compare.sides import Side
from benchmarks.config import cells_of
from benchmarks.reports.measures import measure, test_images
from benchmarks.results.card import Card
from benchmarks.results.provenance import machine

METRICS = ("clean.error", "corrupted.error", "clean.nll", "clean.ece")
COST = "cost.seconds_per_epoch"
"""Compared where the hardware is the same; slower training is no regression of what was measured."""
BySeed = dict[int, Card]


@dataclass(frozen=True)
class Comparison:
    """One metric of one group of cells."""

    group: str
    mode: str
    metric: str
    a: dict[int, float]
    b: dict[int, float]
    judged: Judged

    @property
    def regression(self) -> bool:
        return self.judged.change is Change.WORSE and self.metric != COST


@dataclass(frozen=True)
class Divergence:
    """A group of which runs diverged: the seeds, on each side."""

    group: str
    a: tuple[int, ...]
    b: tuple[int, ...]
    finished_a: tuple[int, ...]

    @property
    def regression(self) -> bool:
        """Something diverged that had not: a seed that went well in A, or the first one at all."""
        return bool(self.b) and (not self.a or bool(set(self.b) & set(self.finished_a)))


@dataclass(frozen=True)
class Result:
    """All that is said of two sides."""

    a: Side
    b: Side
    comparisons: tuple[Comparison, ...]
    divergences: tuple[Divergence, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    @cached_property
    def counts(self) -> Counter[Change]:
        return Counter(found.judged.change for found in self.comparisons)

    @property
    def beyond_noise(self) -> list[Comparison]:
        return [c for c in self.comparisons if c.judged.change in (Change.WORSE, Change.BETTER)]

    @property
    def regressions(self) -> int:
        """How much got worse beyond noise, or diverged where it had not."""
        worse = sum(found.regression for found in self.comparisons)
        return worse + sum(found.regression for found in self.divergences)


def compare(a: Side, b: Side) -> Result:
    """Match the cells of both sides and judge every metric that both have."""
    sides = _groups(a.cards), _groups(b.cards)
    labels = _labels({key: next(iter(group.values())) for side in sides for key, group in side.items()})
    shared = sorted(sides[0].keys() & sides[1].keys(), key=labels.__getitem__)
    comparisons, divergences = list[Comparison](), list[Divergence]()
    for key in shared:
        left, right = sides[0][key], sides[1][key]
        lost = Divergence(
            labels[key], _seeds(left, "diverged"), _seeds(right, "diverged"), _seeds(left, "finished")
        )
        if lost.a or lost.b:
            divergences.append(lost)
        comparisons += _metrics(labels[key], left, right)
    judged = correct([found.judged for found in comparisons])
    comparisons = [replace(found, judged=test) for found, test in zip(comparisons, judged, strict=True)]
    return Result(
        a,
        b,
        tuple(comparisons),
        tuple(divergences),
        _lacking(sides[0], sides[1], labels),
        _lacking(sides[1], sides[0], labels),
    )


def _groups(cards: Mapping[str, Card]) -> dict[str, BySeed]:
    """Cards by seed, by all settings but the seed. Settings that an older card lacks have their defaults."""
    configs: dict[str, dict[str, Any]] = {}
    texts = {}
    for card_id, card in cards.items():
        config = {**card["cell"], "seed": 0}
        texts[card_id] = _text(config)
        configs.setdefault(texts[card_id], config)
    # What this version of the code does not know, such as a plug-in's method, stands for itself.
    cells = dict(zip(configs, cells_of([*configs.values()]), strict=True))
    keys = {text: _text(cell.identity()) if cell else text for text, cell in cells.items()}
    groups: dict[str, BySeed] = {}
    for card_id, card in sorted(cards.items(), key=lambda item: item[1]["cell"].get("seed", 0)):
        groups.setdefault(keys[texts[card_id]], {})[card["cell"].get("seed", 0)] = card
    return groups


def _text(config: Any) -> str:
    """Settings as a text that is the same for the same numbers, such as 3 and 3.0."""

    def numbers(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: numbers(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [*map(numbers, value)]
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    return json.dumps(numbers(config), sort_keys=True)


def _metrics(group: str, a: BySeed, b: BySeed) -> Iterable[Comparison]:
    modes = [
        list(dict.fromkeys(mode for card in side.values() for mode in card["metrics"] or {}))
        for side in (a, b)
    ]
    for mode in modes[0]:
        if mode not in modes[1]:
            continue
        for metric in METRICS:
            images = _images(a, mode) if metric.endswith("error") else None
            yield from _comparison(group, mode, metric, a, b, images)
    if len({machine(card["provenance"]) for side in (a, b) for card in side.values()}) == 1:
        yield from _comparison(group, "", COST, a, b, None)


def _comparison(
    group: str, mode: str, metric: str, a: BySeed, b: BySeed, images: int | None
) -> Iterable[Comparison]:
    before, after = _values(a, metric, mode), _values(b, metric, mode)
    if before and after:
        yield Comparison(group, mode, metric, before, after, judge(before, after, images))


def _values(side: BySeed, metric: str, mode: str) -> dict[int, float]:
    """The metric by seed, of the cards that have it. ``mode``: "" for a cost."""
    having = {seed: card for seed, card in side.items() if not mode or mode in (card["metrics"] or {})}
    measured = {seed: measure(card, metric, mode) for seed, card in having.items() if card["metrics"]}
    return {seed: value for seed, value in measured.items() if value is not None}


def _images(side: BySeed, mode: str) -> int | None:
    counts = (
        test_images(card, mode) for card in side.values() if card["metrics"] and mode in card["metrics"]
    )
    return next(counts, None)


def _seeds(side: BySeed, status: str) -> tuple[int, ...]:
    return tuple(seed for seed, card in side.items() if card["status"] == status)


def _lacking(
    side: Mapping[str, BySeed], other: Mapping[str, BySeed], labels: Mapping[str, str]
) -> tuple[str, ...]:
    """The cells of one side that the other has not, a line for each group."""
    lines = []
    for key, group in sorted(side.items(), key=lambda item: labels[item[0]]):
        seeds = [seed for seed in group if seed not in other.get(key, {})]
        if seeds:
            lines.append(f"{labels[key]}: seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}")
    return tuple(lines)


def _labels(cards: Mapping[str, Card]) -> dict[str, str]:
    """A name for every group: what its cells are, and the settings that tell it from others of that name."""
    short = {key: label_of(card["cell"]) for key, card in cards.items()}
    labels = {}
    for key, name in short.items():
        alike = [flat(cards[other]["cell"]) for other in short if short[other] == name]
        mine = flat(cards[key]["cell"])
        telling = [
            f"{setting}={value}"
            for setting, value in mine.items()
            if setting != "seed" and any(other.get(setting, value) != value for other in alike)
        ]
        labels[key] = " ".join([name, *telling])
    return labels
