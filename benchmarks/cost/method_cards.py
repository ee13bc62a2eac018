"""Write docs/methods/<name>.md, a card for each method: `python -m benchmarks.cost.method_cards`.

A card is the docstring, the config and the entry in method_facts.yaml, with a cost that is measured.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
import torch.nn.functional as F

from benchmarks.config import load
from benchmarks.cost.counting import training_cost
from benchmarks.data.batches import epoch_batches
from benchmarks.markdown import template
from benchmarks.registry import locate, lookup
from benchmarks.training.trainer import build
from benchmarks.typed import read_yaml

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "methods"
FACTS = Path(__file__).with_name("method_facts.yaml")
MODELS = {"resnet_tiny": "resnet_smoke", "vit_tiny": "vit_smoke"}


@dataclass(frozen=True)
class CostRow:
    """One row of a card's table."""

    model: str
    forward: float
    backward: float
    both: float
    added: int


def card(name: str) -> str:
    """The card of the registered method ``name`` in Markdown."""
    cell = load([f"method={name}"])[0]
    arguments = cell.method.arguments
    return template("cost", "method_card.md.j2").render(
        name=name,
        description=lookup("method", name).description,
        target=cell.method.target,
        text=_text(locate(cell.method.target)),
        batch=cell.recipe.batch_size,
        costs=[_cost(name, model, recipe) for model, recipe in MODELS.items()],
        arguments=[f"`{key}={_word(value)}`" for key, value in arguments.items()],
        override=next((f"method.{key}={_word(value)}" for key, value in arguments.items()), "seed=1"),
        **read_yaml(FACTS)[name],
    )


def _cost(name: str, model: str, recipe: str) -> CostRow:
    cell = load([f"method={name}", f"model={model}", f"recipe={recipe}"])[0]
    source = cell.dataset.build()
    data = source.load(Path())
    method = build(cell, source, "cpu", data)[1]
    measured = training_cost(method, F.cross_entropy, *next(epoch_batches(data, cell.recipe, 0, 0)))
    added = sum(parameter.numel() for parameter in method.parameters())
    return CostRow(model, measured.forward_passes, measured.backward_passes, measured.passes, added)


def _text(target: Any) -> str:
    """What the docstring says before its list of arguments, as Markdown. A function's class speaks first."""
    documented = [target] if inspect.isclass(target) else [get_type_hints(target)["return"], target]
    texts = [re.split(r"\n\n(?:Args|Raises):", inspect.getdoc(part) or "")[0] for part in documented]
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", "\n\n".join(texts))
    return text.replace("``", "`")


def _word(value: Any) -> str:
    """``value`` as an override on the command line writes it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def main() -> None:
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in read_yaml(FACTS):
        (FOLDER / f"{name}.md").write_text(card(name), encoding="utf-8")


if __name__ == "__main__":
    main()
