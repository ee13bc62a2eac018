"""One pass over clean and corrupted images, kept or made batch by batch, and the card it ends in."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from benchmarks.config import load
from benchmarks.data.corruptions import corrupt
from benchmarks.data.dataset import DataSet, Images
from benchmarks.evaluation import evaluate as module
from benchmarks.evaluation.evaluate import EvaluationImages, evaluate
from benchmarks.evaluation.metrics import measure, per_example, summarise
from benchmarks.results.card import DamagedCardError, check_card
from benchmarks.training.trainer import Trainer

TABLES = "{contrast: [0.4, 0.3, 0.2, 0.1, 0.05], brightness: [0.1, 0.2, 0.3, 0.4, 0.5]}"
SMOKE = Path(__file__).parents[3] / "reports" / "smoke" / "damp-table2" / "cards"


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    cell = load(["recipe.epochs=1", "evaluation.batch_size=32", f"dataset.corruptions={TABLES}"])[0]
    source = cell.dataset.build()
    whole = source.load(Path())
    small = Images(whole.train.images[:100], whole.train.labels[:100])
    run = Trainer(cell, source, DataSet(small, small, whole.mean, whole.std), "cpu")
    run.run()
    return run


def test_every_set_is_measured_as_by_hand(trainer: Trainer) -> None:
    source, data = trainer.source, trainer.data
    sets = EvaluationImages.make(source, data)
    found = evaluate(trainer.cell, trainer.method, data, sets)["plain"]
    trainer.model.eval()
    with torch.no_grad():
        by_hand = measure(trainer.model(data.normalise(data.test.images)), data.test.labels)
        assert found["clean"] == pytest.approx(by_hand, rel=1e-6)
        for (name, severity), made in sets.corrupted.items():
            images = made(data.test.images, torch.arange(100))
            by_hand = measure(trainer.model(data.normalise(images)), data.test.labels)
            for key, levels in found["corrupted"][name].items():
                assert levels[severity - 1] == pytest.approx(by_hand[key], rel=1e-6)
    assert list(found["corrupted"]) == list(source.corruptions)


def test_what_is_kept_changes_no_number(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """All sets, four of ten and none: made at once or batch by batch."""
    size = trainer.data.test.images.nbytes
    results, calls = [], []
    for sets in (100, 4, 0):
        free = iter([2 * sets * size + 1, *(2 * sets * size + 1 - n * size for n in range(20))])
        monkeypatch.setattr(module, "free_memory", lambda device, free=free: next(free))
        made: list[int] = []
        monkeypatch.setattr(
            module, "corrupt", lambda x, *a, made=made: (made.append(len(x)), corrupt(x, *a))[1]
        )
        images = EvaluationImages.make(trainer.source, trainer.data)
        calls.append(len(made))
        results.append(evaluate(trainer.cell, trainer.method, trainer.data, images))
    assert calls == [10, 4, 0]
    assert results[0] == results[1] == results[2]


def test_free_memory_is_what_the_system_says() -> None:
    free = module.free_memory(torch.device("cpu"))
    assert 0 < free <= psutil.virtual_memory().total


def test_mapped_images_are_not_copied_on_a_cpu(trainer: Trainer) -> None:
    read = []

    class Published(dict):
        def check(self) -> None:
            read.append("checked")

        def read(self, name: str, severity: int, places: Tensor) -> Tensor:
            read.append((name, severity))
            return trainer.data.test.images[places]

    keys = [("contrast", severity) for severity in range(1, 6)]
    sets = EvaluationImages.make(trainer.source, trainer.data, published=Published.fromkeys(keys))
    assert list(sets.corrupted) == keys
    assert sets.origins == {"contrast": "published"}
    assert read == ["checked"]
    evaluate(trainer.cell, trainer.method, trainer.data, sets)
    assert read[1:] == [key for _ in range(4) for key in keys]  # four batches of 32, 100 images


def test_the_test_images_are_read_once(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = EvaluationImages.make(trainer.source, trainer.data)
    reads = []

    class Counting(Images):
        def read(self, order: Tensor, *arguments: Any) -> Any:
            reads.append(order)
            return super().read(order, *arguments)

    counted = replace(sets, clean=Counting(sets.clean.images, sets.clean.labels))
    corrupted = []
    monkeypatch.setattr(module, "corrupt", lambda *arguments: corrupted.append(arguments))
    evaluate(trainer.cell, trainer.method, trainer.data, counted)
    assert [len(order) for order in reads] == [100]
    assert corrupted == []  # made before, for the next cell as well


def test_five_numbers_an_example_are_enough() -> None:
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(300, 8), torch.randint(0, 8, (300,))
    parts = [per_example(x, y) for x, y in zip(logits.split(64), labels.split(64), strict=True)]
    assert all(part.shape[0] == 5 for part in parts)
    assert summarise(torch.cat(parts, 1)) == measure(logits, labels)


def test_reestimation_sees_the_whole_of_a_sorted_set(trainer: Trainer) -> None:
    cell = load(["recipe.batch_size=2"])[0]
    labels = torch.arange(100) // 10
    data = DataSet(Images(trainer.data.train.images, labels), trainer.data.test, (0.5,), (0.5,))
    seen = torch.cat([x for x, _ in data.train.read(module._training_places(cell, data), 2)])
    assert len(seen) == 32
    assert labels[module._training_places(cell, data)].unique().tolist() == list(range(10))


def test_cards_with_and_without_attacks_are_valid() -> None:
    card = json.loads(sorted(SMOKE.glob("*.json"))[0].read_text())
    check_card(card)
    assert "attacks" not in card["metrics"]["plain"]
    measured = {"n": 5, "error": 1.0, "top3_error": 0.5, "nll": 1.0, "ece": 0.1, "epsilon": 0.1}
    attacked = copy.deepcopy(card)
    attacked["metrics"]["plain"]["attacks"] = {"fgsm": measured}
    check_card(attacked)
    for broken in ({**measured, "error": None}, {k: v for k, v in measured.items() if k != "epsilon"}):
        attacked["metrics"]["plain"]["attacks"] = {"fgsm": broken}
        with pytest.raises(DamagedCardError):
            check_card(attacked)


def test_every_committed_card_is_valid() -> None:
    cards = sorted(SMOKE.parents[1].rglob("cards/*.json"))
    assert len(cards) > 40
    for path in cards:
        assert check_card(json.loads(path.read_text()))["id"] == path.stem
