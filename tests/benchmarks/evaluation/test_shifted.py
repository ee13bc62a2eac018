"""Sets of other images of ImageNet's classes: what counts as right, how they are read, and the card they end in."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.cell import Cell
from benchmarks.config import load
from benchmarks.data.files.declared import file_set
from benchmarks.data.imagenet import ImageNet
from benchmarks.data.shifted import open_shifted
from benchmarks.errors import UserError
from benchmarks.evaluation.evaluate import evaluate
from benchmarks.evaluation.metrics import measure, per_accepted_example, summarise
from benchmarks.launch import run_cell as launch
from benchmarks.results.card import DamagedCardError, check_card
from benchmarks.results.store import Store
from benchmarks.results.weights import load_weights
from benchmarks.runtime import Runtime
from benchmarks.training.trainer import Trainer, build

SMOKE = Path(__file__).parents[3] / "reports" / "smoke" / "damp-table2" / "cards"
SIZE = 16
CLASSES = ("n0", "n1", "n2", "n3", "n4")
OF_A = ("n1", "n3")
SETS = "[imagenet_sketch, imagenet_a, imagenet_d, imagenet_hard]"
SETTINGS = [
    *("dataset=imagenet", "dataset.corruptions={}", "recipe.epochs=1", "recipe.batch_size=4"),
    *("evaluation=imagenet_shifts", "evaluation.batch_size=3", f"evaluation.shifted={SETS}"),
]


def _save(folder: Path, names: tuple[str, ...], count: int = 2) -> None:
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            dice = np.random.default_rng([label, number])
            pixels = dice.integers(0, 256, (20, 20 + 10 * number, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """Five classes of noise in ImageNet's layout and four sets of shifted images, of which A has two classes."""
    monkeypatch.setattr(ImageNet, "num_classes", len(CLASSES))
    monkeypatch.setattr(ImageNet, "image_size", SIZE)
    monkeypatch.setattr("benchmarks.data.streaming.cores", lambda: 0)  # read in this process
    for module in ("imagenet", "shifted"):
        monkeypatch.setattr(
            f"benchmarks.data.{module}.imagenet_classes", lambda subset="": OF_A if subset else CLASSES
        )
    monkeypatch.setattr(launch, "_loaded", {})
    root = tmp_path / "data"
    for part in ("imagenet/train", "imagenet/val", "sketch"):
        _save(root / part, CLASSES)
    _save(root / "imagenet-a", OF_A)
    for part in ("background", "material", "texture"):
        _save(root / "ImageNet-D" / part, ("chair", "mug"))
    for name, labels in {"chair": [0, 4], "mug": [2]}.items():
        monkeypatch.setitem(file_set("imagenet_d").accepted, name, labels)
    _save(root / "imagenet-hard", ("images",), 3)
    several = {f"images/{number}.png": [number, number + 2] for number in range(3)}
    (root / "imagenet-hard/labels.json").write_text(json.dumps(several))
    return Runtime(data=str(root), cache=str(tmp_path / "cache"), store=str(tmp_path / "store"), threads=1)


def _prepared(path: Path, squash: bool) -> torch.Tensor:
    """float [3, SIZE, SIZE]: the shorter side or both sides resized to 256, and the middle cut out."""
    image = Image.open(path)
    size = [256, 256] if squash else [256 * side // min(image.size) for side in image.size]
    pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    top, left = ((side - SIZE) // 2 for side in pixels.shape[1:])
    return torch.from_numpy(pixels[:, top : top + SIZE, left : left + SIZE].copy())


def test_every_set_is_measured_as_by_hand_and_the_card_is_valid(runtime: Runtime) -> None:
    cell = load(SETTINGS)[0]
    assert launch.preflight(cell, runtime) == []
    store = Store(runtime.store_folder)
    with store.claim(cell.id) as heartbeat:
        assert heartbeat is not None
        card = launch.run_cell(cell, runtime, "cpu", store, heartbeat, "single", "test")
    assert store.read(cell.id, cell) == json.loads(json.dumps(check_card(card)))
    measured = card["metrics"]["plain"]["shifted"]
    parts = ("background", "material", "texture")
    assert set(measured) == {
        "imagenet_a",
        "imagenet_hard",
        "imagenet_sketch",
        *(f"imagenet_d.{p}" for p in parts),
    }

    source = cell.dataset.build({"cache": runtime.cache_folder})
    trained = build(cell, source, "cpu")[0].eval()
    load_weights(trained, store.weights(cell.id))
    data = source.load(runtime.data_folder)

    def logits(folder: str, squash: bool) -> torch.Tensor:
        paths = sorted((runtime.data_folder / folder).rglob("*.png"))
        images = torch.stack([_prepared(path, squash) for path in paths])
        with torch.no_grad():
            return trained(data.normalise(images))

    sketch = measure(logits("sketch", True), torch.arange(5).repeat_interleave(2), cell.evaluation.ece_bins)
    assert measured["imagenet_sketch"] == pytest.approx(sketch, rel=1e-5)
    of_a = logits("imagenet-a", True)[:, [1, 3]].argmax(1)
    wrong = (of_a != torch.tensor([0, 0, 1, 1])).double().mean()
    assert measured["imagenet_a"] == {"n": 4, "error": 100 * float(wrong), "top3_error": 0.0}
    for folder, squash, name, accepted in (
        ("ImageNet-D/texture", True, "imagenet_d.texture", [{0, 4}, {0, 4}, {2}, {2}]),
        ("imagenet-hard", False, "imagenet_hard", [{0, 2}, {1, 3}, {2, 4}]),
    ):
        best = logits(folder, squash).topk(3).indices.tolist()
        pairs = list(zip(best, accepted, strict=True))
        assert measured[name] == {
            "n": len(accepted),
            "error": pytest.approx(100 * np.mean([b[0] not in some for b, some in pairs])),
            "top3_error": pytest.approx(100 * np.mean([not some & {*b} for b, some in pairs])),
        }


def test_the_rest_of_the_card_is_the_same_without_shifted_sets(runtime: Runtime) -> None:
    """With a method that draws in inference, too."""
    settings = [*SETTINGS, "method=was"]
    results = []
    for more in ([], ["evaluation.shifted=[]"]):
        cell = load([*settings, *more])[0]
        source = cell.dataset.build({"cache": runtime.cache_folder})
        data = launch._training_data(cell, source, runtime, "cpu")
        sets = launch._evaluation_images(cell, source, runtime, data, "cpu")
        trainer = Trainer(cell, source, data, "cpu")
        results.append(evaluate(cell, trainer.method, data, sets))
    with_shifted, without = results
    assert list(with_shifted) == ["plain", "shadow"]
    assert all(metrics.pop("shifted") for metrics in with_shifted.values())
    assert with_shifted == without


def test_what_counts_as_right() -> None:
    logits = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
    several = torch.tensor([[3, 0], [0, 1]])
    assert per_accepted_example(logits, several).tolist() == [[0, 1], [0, 1]]
    assert per_accepted_example(logits, several, torch.tensor([0, 1, 4])).tolist() == [[0, 1], [0, 0]]
    one = torch.tensor([[1], [4]])
    whole = summarise(per_accepted_example(logits, one))
    assert whole == measure(logits, one[:, 0])
    some = summarise(per_accepted_example(logits, one, torch.arange(5)))
    assert some == {key: whole[key] for key in ("n", "error", "top3_error")}
    filled = torch.cat([one, torch.full_like(one, -1)], 1)
    assert summarise(per_accepted_example(logits, filled)) == some
    broken = logits.clone()
    broken[0, 1] = float("nan")
    assert per_accepted_example(broken, filled)[0].tolist() == [1, 0]


def test_what_is_missing_is_named_before_anything_runs(runtime: Runtime) -> None:
    for folder in ("imagenet-a", "sketch"):
        shutil.rmtree(runtime.data_folder / folder)
    problems = launch.preflight(load(SETTINGS)[0], runtime)
    assert len(problems) == 2
    for part in ("imagenet_a lacks imagenet-a", str(runtime.data_folder.resolve()), "data fetch imagenet_a"):
        assert part in problems[0]
    assert "imagenet_sketch lacks sketch" in problems[1] and "github.com/HaohanWang" in problems[1]
    with pytest.raises(UserError, match="imagenet_a lacks imagenet-a"):
        open_shifted(["imagenet_a"], ImageNet(), runtime.data_folder, download=False)


def test_a_damaged_image_is_found_before_anything_runs(runtime: Runtime) -> None:
    (runtime.data_folder / "sketch/n2/1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1 of 10 images can't be used: n2/1.png"):
        launch.preflight(load(SETTINGS)[0], runtime)


def test_settings_that_make_no_sense(runtime: Runtime) -> None:
    with pytest.raises(UserError, match=r"unknown value of evaluation.shifted 'imagenet_q'; did you mean"):
        load(["dataset=imagenet", "evaluation.shifted=[imagenet_q]"])
    with pytest.raises(UserError, match=r"unknown value of evaluation.shifted 'imagenet_c'"):
        load(["dataset=imagenet", "evaluation.shifted=[imagenet_c]"])
    with pytest.raises(UserError, match="choose dataset=imagenet"):
        launch.preflight(load(["evaluation.shifted=[imagenet_a]"])[0], runtime)
    with pytest.raises(UserError, match=r"need dataset.split=test"):
        launch.preflight(load([*SETTINGS, "dataset.split=validation"])[0], runtime)


def test_ids_depend_on_the_sets_but_not_on_their_order() -> None:
    def cell(*sets: str) -> Cell:
        return load(["dataset=imagenet", f"evaluation.shifted=[{','.join(sets)}]"])[0]

    assert cell().id == load(["dataset=imagenet"])[0].id
    assert "shifted" not in cell().identity()["evaluation"]
    assert cell("imagenet_a", "imagenet_r").id == cell("imagenet_r", "imagenet_a", "imagenet_r").id
    assert len({cell().id, cell("imagenet_a").id, cell("imagenet_a", "imagenet_r").id}) == 3


def test_cards_with_sets_of_shifted_images_are_checked() -> None:
    card = json.loads(sorted(SMOKE.glob("*.json"))[0].read_text())
    few = {"n": 5, "error": 1.0, "top3_error": 0.5}

    def with_shifted(values: Any) -> Any:
        changed = copy.deepcopy(card)
        changed["metrics"]["plain"]["shifted"] = {"imagenet_a": values}
        return changed

    for whole in (few, {**few, "nll": 1.0, "ece": 0.1}):
        check_card(with_shifted(whole))
    for broken in (
        {**few, "nll": 1.0},
        {**few, "error": None},
        {"n": 5},
        {**few, "nll": None, "ece": None},
        3,
    ):
        with pytest.raises(DamagedCardError):
            check_card(with_shifted(broken))
