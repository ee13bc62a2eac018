"""The golden mini-store and its reports: made-up cards, some diverged, missing or damaged, and what they must give.

Run this file to write cards and reports anew, then read what changed (after a new default, or a new
``PROTOCOL_VERSION``, the cells have other ids): ``PYTHONPATH=.:tests python tests/benchmarks/reports/golden_report.py``
"""

from __future__ import annotations

import copy
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest import mock

from fake_cards import fake_cards

from benchmarks import cli, registry
from benchmarks.launch.request import Request
from benchmarks.reports.evidence import Evidence, gather
from benchmarks.reports.render import card_text, digest, markdown
from benchmarks.results.card import MEASURED
from benchmarks.tables.published import load_published
from benchmarks.tables.reading import load_table

GOLDEN = Path(__file__).parent / "golden"
STORE = GOLDEN / "cards"
CONFIGS = GOLDEN / "configs"
TABLE = load_table(CONFIGS / "table" / "test" / "golden.yaml", "test/golden")
PUBLISHED = load_published(CONFIGS / "published" / "test" / "golden.yaml")
SEEDS = (0, 1, 2)
DIVERGED = [("resnet", "sam", 1)]
MISSING = [("vit", "was", 2), *(("resnet", "was", seed) for seed in SEEDS)]
"""Without a good card: the first has none, the others' are damaged, each in its own way."""
Cards = dict[tuple[str, str, int], Any]


@contextmanager
def registered() -> Iterator[None]:
    """The golden table counts as a plug-in's."""
    registry.entries.cache_clear()
    with mock.patch.object(registry, "folders", lambda: (registry.OWN_FOLDER, CONFIGS)):
        yield
    registry.entries.cache_clear()


@cache
def request(scale: str) -> Request:
    """The golden table's cells."""
    with registered():
        return Request.parse("test/golden", scale, None, [], [], "reports")


def command(scale: str) -> str:
    """What makes the report again."""
    return request(scale).again(_cards(scale))


@cache
def _cards(scale: str) -> Cards:
    smoke = scale == "smoke"
    made = fake_cards(TABLE, scale, SEEDS, DIVERGED if smoke else (), MISSING if smoke else ())
    for card in {id(card): card for card in made.values() if card}.values():
        for metrics in (card["metrics"] or {}).values():
            metrics["corrupted"] = _types_of_digits(metrics["corrupted"])
    for place, cell_id in request(scale).positions.items():
        if made[place] is not None:
            made[place] |= {
                "id": cell_id,
                "cell": json.loads(json.dumps(request(scale).cells[cell_id].as_dict())),
            }
    return made


def _types_of_digits(made: dict[str, Any]) -> dict[str, Any]:
    """The made-up types under the names of those that the cells have; the two that are left are the others' mean."""
    mean = {
        key: [round(fmean(level), 5) for level in zip(*(of[key] for of in made.values()), strict=True)]
        for key in MEASURED
    }
    names = {"defocus_blur": "gaussian_blur", "pixelate": "brightness"}
    return {names.get(name, name): of for name, of in made.items()} | {
        name: copy.deepcopy(mean) for name in ("impulse_noise", "shot_noise")
    }


def cards(scale: str) -> Cards:
    """The good cards of the golden report at ``scale``."""
    return copy.deepcopy(_cards(scale))


def damaged() -> dict[str, str]:
    """File name -> text of the cards that are set aside: cut off, foreign, another's; and a second copy of one."""
    places = request("smoke").positions
    cut, foreign, wrong = (places["resnet", "was-aom", seed] for seed in SEEDS)
    good = cards("smoke")["vit", "sgd", 0]
    return {
        f"{cut}.json": card_text(good)[:500],
        f"{foreign}.json": card_text({**good, "id": foreign, "schema": 99}),
        f"{wrong}.json": card_text(good),
        f"{good['id']} (copy).json": card_text(good),
    }


def store() -> dict[str, str]:
    """File name -> text of every file of the mini-store."""
    good = [card for scale in TABLE.scales for card in cards(scale).values() if card]
    return {f"{card['id']}.json": card_text(card) for card in good} | damaged()


def evidence(scale: str, of: Cards | None = None) -> Evidence:
    """The evidence in ``of``, or in the golden cards."""
    return gather(TABLE, scale, SEEDS, cards(scale) if of is None else of, PUBLISHED)


def text(scale: str, of: Cards | None = None) -> str:
    """The Markdown of the report on ``of``, or on the golden cards."""
    here = evidence(scale, of)
    return markdown(here, "test-golden", command(scale), digest(map(card_text, here.cards)))


def report(scale: str, folder: Path) -> Path:
    """Where the real command has written the report from a copy of the mini-store, both below ``folder``."""
    copied = folder / "cards"
    if not copied.is_dir():
        shutil.copytree(STORE, copied)
    arguments = [
        "report",
        "test/golden",
        "--scale",
        scale,
        "--cards",
        str(copied),
        "--reports",
        str(folder / "reports"),
    ]
    with registered(), mock.patch.object(sys, "argv", ["weightaug", *arguments]):
        assert not cli.main()
    return folder / "reports" / scale / "test-golden.md"


def _write() -> None:
    shutil.rmtree(STORE, ignore_errors=True)
    STORE.mkdir()
    for name, content in store().items():
        (STORE / name).write_text(content, encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        for scale in TABLE.scales:
            path = report(scale, Path(folder))
            for suffix in (".md", ".html"):
                shutil.copy(path.with_suffix(suffix), GOLDEN / f"{scale}{suffix}")
        shutil.copy(Path(folder) / "reports" / "README.md", GOLDEN / "README.md")


if __name__ == "__main__":
    _write()
