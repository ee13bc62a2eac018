"""A trained cell's weights: kept with its card, loaded bit for bit, and refused where they don't belong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import CommandLine
from safetensors.torch import load_file, save_file
from torch import nn
from trained_cells import INPUTS, trained

import benchmarks
from benchmarks.config import load
from benchmarks.errors import UserError
from benchmarks.launch import run_cell
from benchmarks.registry import entries
from benchmarks.results import weights
from benchmarks.results.store import Store
from benchmarks.results.weights import load_weights
from weightaug.method import Method
from weightaug.random import RandomSource

QUICK = ["recipe.epochs=1", "evaluation.corruptions=false", "wandb=disabled", "device=cpu", "threads=1"]
RECIPES = {
    "resnet_tiny": ["recipe=resnet_smoke"],
    "vit_tiny": ["recipe=vit_smoke", "recipe.warmup_epochs=0"],
}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("model", RECIPES)
@pytest.mark.parametrize("method", entries("method"))
def test_every_method_comes_back_bit_for_bit(method: str, model: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    run = trained(store, [f"method={method}", f"model={model}", *RECIPES[model]])
    before, random = files(tmp_path), torch.random.get_rng_state()
    net, again, card = benchmarks.load(run.cell.id, store=tmp_path)
    assert files(tmp_path) == before
    assert torch.equal(torch.random.get_rng_state(), random)
    assert card == store.read(run.cell.id, run.cell)
    assert not net.training
    ours, theirs = net.state_dict(), run.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), run.method.parameters(), strict=True))
    run.model.eval()
    x = run.data.normalise(run.data.test.images)
    for mode in again.modes:  # shadow draws go on from where training left them
        assert torch.equal(again.predict(x, mode), run.method.predict(x, mode))


def test_a_run_through_the_command_line(weightaug: CommandLine, tmp_path: Path) -> None:
    settings = ["method=was", "evaluation.batch_norm=reestimated", *QUICK]
    done = weightaug("run", *settings)
    assert done.returncode == 0, done.stderr
    card_path = tmp_path / done.stdout.splitlines()[-1].removeprefix("card: ")
    card = json.loads(card_path.read_text())
    path = tmp_path / "runs" / "weights" / f"{card['id']}.safetensors"
    assert card["weights"]["bytes"] == path.stat().st_size
    names = load_file(path).keys()
    assert {"conv1.weight", "bn1.running_mean", "bn1.num_batches_tracked", "method:coefficients"} <= names
    before = files(tmp_path)

    loaded = weightaug("load", card["id"][:6])
    assert loaded.returncode == 0, loaded.stderr
    assert "resnet_tiny, 19,810 parameters" in loaded.stdout
    assert card["weights"]["sha256"] in loaded.stdout

    checked = weightaug("load", *settings, "--check")
    assert checked.returncode == 0, checked.stderr
    for mode in ("plain", "shadow"):
        error = card["metrics"][mode]["clean"]["error"]
        assert f"{mode} clean error: {error:.6g} (card {error:.6g}), equal" in checked.stdout
    assert files(tmp_path) == before

    card["metrics"]["shadow"]["clean"]["nll"] *= 1.01
    card_path.write_text(json.dumps(card))
    differing = weightaug("load", *settings, "--check")
    assert differing.returncode == 1
    assert differing.stdout.count("DIFFERS") == 1
    assert "shadow clean nll" in next(line for line in differing.stdout.splitlines() if "DIFFERS" in line)


def test_killed_between_weights_and_card_the_cell_runs_again(
    weightaug: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_cell.Store, "write", die)
        assert weightaug("run", *QUICK).returncode == 130
    store = Store(tmp_path / "runs")
    cell = load(QUICK)[0]
    first = store.weights(cell.id).read_bytes()
    assert not store.has(cell.id)
    assert "is not finished" in weightaug("load", *QUICK).stderr
    assert weightaug("run", *QUICK).returncode == 0
    assert load_same(first, store.weights(cell.id), tmp_path)
    assert [path.name for path in (tmp_path / "runs" / "weights").iterdir()] == [f"{cell.id}.safetensors"]
    assert not any((tmp_path / "runs" / "work").iterdir())


def load_same(first: bytes, second: Path, folder: Path) -> bool:
    (folder / "first.safetensors").write_bytes(first)
    return weights.read(folder / "first.safetensors").sha256 == weights.read(second).sha256


def test_killed_while_the_weights_are_written_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(tensors: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "save_file", die)
    with pytest.raises(KeyboardInterrupt):
        trained(Store(tmp_path), [])
    assert files(tmp_path) == {}


def test_dropped_weights_are_no_part_of_the_cell(weightaug: CommandLine, tmp_path: Path) -> None:
    assert load([*QUICK, "weights=drop"])[0].id == load(QUICK)[0].id
    done = weightaug("run", *QUICK, "weights=drop")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "runs" / "weights").exists()
    missing = weightaug("load", *QUICK)
    assert missing.returncode == 2
    assert "run with weights=drop" in missing.stderr
    assert "did you mean 'drop'" in weightaug("run", *QUICK, "weights=dropp").stderr


def test_a_diverged_cell_has_no_weights(weightaug: CommandLine, tmp_path: Path) -> None:
    diverging = [*QUICK, "recipe.learning_rate=1e30"]
    assert "diverged" in weightaug("run", *diverging).stdout
    assert not (tmp_path / "runs" / "weights").exists()
    assert "diverged in epoch 1: it has no weights" in weightaug("load", *diverging).stderr


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign", "gone"])
def test_damaged_weights_are_named_and_left_alone(damage: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    cell = trained(store, ["method=was"]).cell
    path = store.weights(cell.id)
    whole = path.read_bytes()
    if damage == "foreign":
        save_file({"x": torch.zeros(3)}, path)
    elif damage == "gone":
        path.unlink()
    else:
        flipped = whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]
        path.write_bytes({"truncated": whole[:-100], "flipped": flipped, "empty": b""}[damage])
    before = files(tmp_path)
    said = (
        "the card promises; put the file back" if damage == "gone" else "are damaged .* were left as they are"
    )
    with pytest.raises(UserError, match=said) as caught:
        benchmarks.load(cell.id, store=tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == before


def test_weights_of_another_cell_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one, two = trained(store, ["seed=1"]).cell, trained(store, ["seed=2"]).cell
    shutil.copy(store.weights(two.id), store.weights(one.id))
    with pytest.raises(UserError, match="are not those of"):
        benchmarks.load(one.id, store=tmp_path)


def test_a_cell_is_found_by_the_start_of_its_id(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run = trained(store, [])
    card = store.read(run.cell.id)
    assert card is not None
    for other in ("abcd01", "abcd02"):
        store.write({**card, "id": other})
    assert benchmarks.load(run.cell.id[:3], store=tmp_path)[2] == card
    with pytest.raises(UserError, match=r"'abc' is the start of 2 cells \(abcd01, abcd02\); give more"):
        benchmarks.load("abc", store=tmp_path)
    wrong = run.cell.id[:8] + "xx" + run.cell.id[10:]
    with pytest.raises(UserError, match=f"the nearest of its 3 cells is {run.cell.id}"):
        benchmarks.load(wrong, store=tmp_path)
    with pytest.raises(UserError, match="there is no card store"):
        benchmarks.load(run.cell.id, store=tmp_path / "nowhere")


def test_a_store_that_can_only_be_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    cell = trained(store, []).cell
    folders = [tmp_path / "runs", *(path for path in (tmp_path / "runs").rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    before = {path: path.stat().st_mtime_ns for path in folders}
    assert benchmarks.load(cell.id, store=tmp_path / "runs")[2]["id"] == cell.id
    assert {path: path.stat().st_mtime_ns for path in folders} == before  # root may write everywhere
    for folder in folders:
        folder.chmod(0o755)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        ({"num_classes": 100}, r"for 10 classes, it has 100 \(fc.weight, fc.bias\); .* num_classes=10"),
        ({"in_channels": 3}, r"conv1.weight is \[8, 1, 3, 3\] in the file and \[8, 3, 3, 3\] in the model; "),
        (
            {"model": "resnet_tiny model.width=16"},
            r" and \d+ more; build it with the settings of cell \w+ \(",
        ),
        (
            {"model": "resnet_tiny model.blocks='1,1'"},
            r"model: the model lacks layer3.* and \d+ more; build it",
        ),
        (
            {"model": "resnet_tiny model.blocks='1,1,1,1'"},
            r"model: the file lacks layer4.* and \d+ more; build",
        ),
        ({"model": "vit_tiny"}, r"the file lacks .* and the model lacks .*; build it .*model=resnet_tiny"),
    ],
)
def test_weights_that_do_not_fit_a_model(build: dict[str, Any], said: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.weights(trained(store, []).cell.id)
    name, *settings = str(build.pop("model", "resnet_tiny")).split()
    model = load([f"model={name}", *settings])[0].model.build(
        **{"num_classes": 10, "in_channels": 1, "image_size": 8, **build}
    )
    before = [value.clone() for value in model.state_dict().values()]
    with pytest.raises(UserError, match=said) as caught:
        load_weights(model, path)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))


class Odd(Method):
    """A method with a nested state of every kind that may be in one."""

    def __init__(self, model: nn.Module, value: float) -> None:
        super().__init__(model)
        self.kept: dict[str, Any] = {
            "list": [torch.full((2,), value), {"deep": torch.tensor(value, dtype=torch.float64)}],
            "half": torch.full((1, 2), value, dtype=torch.bfloat16),
            "none": None,
            "text": "x",
        }

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), **self.kept}


def test_any_state_of_a_method_is_kept(tmp_path: Path) -> None:
    cell = load([])[0]
    model = nn.Linear(2, 3)
    model.tied = model.weight  # two names of one tensor
    method = Odd(model, 1.5)
    path = tmp_path / "a.safetensors"
    entry = weights.save(path, tmp_path, cell, INPUTS, model, method.state_dict())
    kept = weights.read(path)
    assert kept.sha256 == entry["sha256"]
    assert kept.inputs == INPUTS
    state = method.state_dict()
    assert [kept.method.pop(key) for key in ("text", "none")] == [state.pop("text"), state.pop("none")]
    torch.testing.assert_close(kept.method, state, rtol=0, atol=0)
    other = nn.Linear(2, 3)
    other.tied = other.weight
    load_weights(other, path)
    assert torch.equal(other.weight, model.weight)
    again = weights.save(path, tmp_path, cell, INPUTS, model, Odd(model, 1.5).state_dict())
    assert again == entry
    assert weights.save(path, tmp_path, cell, INPUTS, model, Odd(model, 2.5).state_dict()) != entry
    with pytest.raises(UserError, match=r"can't be kept .* weights=drop runs the cell"):
        weights.save(path, tmp_path, cell, INPUTS, model, {"random": RandomSource(0)})
