"""A search over the per-layer draws of a network with shadow weights: the best score within a budget of FLOPs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.cost.dom_savings import DomCost
from benchmarks.errors import UserError
from weightaug.kernel_draws import Draw

Draws = dict[str, Draw]


@dataclass(frozen=True, order=True)
class Score:
    """What is to be small: the loss. Errors among some hundred images are too few to rank draws by: many tie."""

    loss: float
    errors: int


@dataclass(frozen=True)
class ScoredDraws:
    """Draws for all layers, what they cost and how they score."""

    draws: Draws
    macs: int
    score: Score


class DrawSearch:
    """Finds draws for each budget; scores are kept, so that a further budget costs little.

    1. Change every layer by itself from its first candidate: what does each change add to the loss?
    2. From all first candidates make the change that adds the least loss for each multiply-add saved, as if
       losses added up, until the budget is met.
    3. From there, or from better draws that the budget allows and that were measured before, go through the
       layers and give each the candidate with the best score that the budget allows, with all others as they
       are, until nothing changes.

    Nothing is drawn by chance: equal scores give equal results.

    Args:
        cost: the network's multiply-adds.
        candidates: the draws that each layer may have; the first one saves nothing.
        score: measures draws for all layers.
        sweeps: how often step 3 goes through the layers at most.
    """

    def __init__(
        self,
        cost: DomCost,
        candidates: Mapping[str, Sequence[Draw]],
        score: Callable[[Draws], Score],
        sweeps: int = 3,
    ) -> None:
        self.cost, self.candidates, self.sweeps = cost, candidates, sweeps
        self._score = score
        self._seen: dict[tuple[Draw, ...], ScoredDraws] = {}
        self._added: dict[tuple[str, Draw], float] = {}

    @property
    def scored(self) -> int:
        """How many different draws have been measured so far."""
        return len(self._seen)

    def start(self) -> ScoredDraws:
        """All first candidates."""
        return self._choice({name: draws[0] for name, draws in self.candidates.items()})

    def best(self, budget: float) -> ScoredDraws:
        """The best draws found that cost at most ``budget`` of the dense network's FLOPs.

        Raises:
            UserError: see :func:`check_budget`.
        """
        check_budget(self.cost, self.candidates, budget)
        fitting = [known for known in self._seen.values() if self.cost.share(known.draws) <= budget]
        choice = min([self._within(budget), *fitting], key=lambda known: known.score)
        for _ in range(self.sweeps):
            better = self._sweep(choice, budget)
            if better is choice:
                break
            choice = better
        return choice

    def _choice(self, draws: Draws) -> ScoredDraws:
        key = tuple(draws[name] for name in self.candidates)
        if key not in self._seen:
            self._seen[key] = ScoredDraws(dict(draws), self.cost.macs_with(draws), self._score(draws))
        return self._seen[key]

    def _added_loss(self, name: str, draw: Draw) -> float:
        """Step 1: of one change alone."""
        if (name, draw) not in self._added:
            start = self.start()
            changed = self._choice({**start.draws, name: draw})
            self._added[name, draw] = changed.score.loss - start.score.loss
        return self._added[name, draw]

    def _within(self, budget: float) -> ScoredDraws:
        """Step 2."""
        draws = {name: options[0] for name, options in self.candidates.items()}
        while self.cost.share(draws) > budget:
            changes = []
            for name, options in self.candidates.items():
                layer, now = self.cost.layers[name], draws[name]
                for draw in options:
                    saved = layer.kept(now) - layer.kept(draw)
                    if saved > 0:
                        added = self._added_loss(name, draw) - self._added_loss(name, now)
                        changes.append((added / saved, name, draw))
            _, name, draw = min(changes, key=lambda change: change[0])
            draws[name] = draw
        return self._choice(draws)

    def _sweep(self, choice: ScoredDraws, budget: float) -> ScoredDraws:
        """Step 3, once; returns ``choice`` itself where nothing is better."""
        for name, options in self.candidates.items():
            for draw in options:
                draws = {**choice.draws, name: draw}
                if self.cost.share(draws) <= budget:
                    other = self._choice(draws)
                    choice = other if other.score < choice.score else choice
        return choice


def check_budget(cost: DomCost, candidates: Mapping[str, Sequence[Draw]], budget: float) -> None:
    """Raise where no search is needed to tell that no draws will be found.

    Raises:
        UserError: the budget is no share, or less than the candidates can reach.
    """
    if not 0 <= budget <= 1:
        raise UserError(f"a budget of {budget:g} is no share of the network's FLOPs; use 0 to 1, e.g. 0.8")
    cheapest = {name: min(draws, key=cost.layers[name].kept) for name, draws in candidates.items()}
    if cost.share(cheapest) > budget:
        raise UserError(
            f"no draws cost as little as {budget:g} of the network's FLOPs: the least is "
            f"{math.ceil(cost.share(cheapest) * 1e4) / 1e4:.4f}; raise the budget (--budgets)"
        )
