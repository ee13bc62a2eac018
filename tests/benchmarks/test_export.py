"""A trained cell as a folder: whole on its own, and its ONNX files compute what the model computes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest
import torch
from command_line import CommandLine
from safetensors.torch import save_file
from torch import Tensor, nn
from trained_cells import trained

import benchmarks
from benchmarks.cell import PROTOCOL_VERSION
from benchmarks.config import load
from benchmarks.data.dataset import DataSet, Images
from benchmarks.errors import UserError
from benchmarks.export import to_onnx
from benchmarks.export.to_onnx import check_onnx, export_onnx
from benchmarks.results.store import Store
from weightaug import WAS, materialise


def test_an_exported_folder_stands_on_its_own(weightaug: CommandLine, tmp_path: Path) -> None:
    """The command line, ONNX included, with a cell whose model and shadow model differ."""
    store = Store(tmp_path / "runs")
    settings = ["method=was", "method.transform=shift", "recipe.batch_size=32", "recipe.epochs=1"]
    run = trained(store, settings)
    done = weightaug("export", run.cell.id[:5], "--out", "mine", "--onnx")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in Path("mine").iterdir()} == {
        "README.md",
        "card.json",
        "model.onnx",
        "model.safetensors",
        "shadow.onnx",
    }
    assert Path("mine/model.safetensors").read_bytes() == store.weights(run.cell.id).read_bytes()
    card = json.loads(Path("mine/card.json").read_text())
    assert card == store.read(run.cell.id)

    text = Path("mine/README.md").read_text()
    for part in (
        "# was on resnet_tiny, digits, seed 0",
        "Smoke scale",
        "19,810 parameters",
        "float32 [N, 1, 8, 8]",
        hashlib.sha256(Path("mine/model.safetensors").read_bytes()).hexdigest(),
        card["weights"]["sha256"],
        "| plain | clean | 1 | 1 | 1 | 1 |",
        'mode="shadow"',
        "Opset 20",
        "| `shadow.onnx` |",
        "transform: shift,",
    ):
        assert part in text
    assert str(tmp_path) not in text
    assert "None" not in text
    for name in ("model.onnx", "shadow.onnx"):
        assert b"benchmarks" not in Path("mine", name).read_bytes()  # nor any other path of this machine
        assert f"{name}: onnxruntime's logits differ from PyTorch's by " in done.stdout

    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    loaded = weightaug("load", "mine")
    assert card["weights"]["sha256"] in loaded.stdout, loaded.stderr
    model, method, _ = benchmarks.load("mine")
    assert isinstance(method, WAS)
    x = torch.randn(2, 1, 8, 8)
    assert check_onnx(model, x, Path("mine/model.onnx")) < 1e-5
    assert check_onnx(model, x, Path("mine/shadow.onnx")) > 1e-3
    shadow = materialise(method, method.draw("predict", 0))
    assert check_onnx(shadow, x, Path("mine/shadow.onnx")) < 1e-5
    torch.testing.assert_close(shadow(x), method.predict(x, "shadow"))  # its first draw


def test_where_an_export_goes(weightaug: CommandLine, tmp_path: Path) -> None:
    settings = ["recipe.batch_size=32", "recipe.epochs=1"]
    first = trained(Store(tmp_path / "runs"), settings).cell
    trained(Store(tmp_path / "runs"), [*settings, "seed=1"])
    assert weightaug("export", *settings, "--out", "deep/mine").returncode == 0
    before = {path.name: path.read_bytes() for path in Path("deep/mine").iterdir()}
    assert before.keys() == {"README.md", "card.json", "model.safetensors"}
    assert weightaug("export", "--out", "deep/mine", first.id).returncode == 0  # again: the same
    assert {path.name: path.read_bytes() for path in Path("deep/mine").iterdir()} == before
    assert weightaug("export", "deep/mine", "--out", "copy").returncode == 0
    Path("file").write_text("")
    Path("full").mkdir()
    Path("full/notes").write_text("")
    for target in ("deep/mine", "full", "file"):
        refused = weightaug("export", *settings, "seed=1", "--out", target)
        assert refused.returncode == 2
        assert f"--out {target} holds something else" in refused.stderr
    assert {path.name: path.read_bytes() for path in Path("deep/mine").iterdir()} == before
    assert weightaug("export", first.id, "--out", "/proc/nowhere").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["load"], "arguments are required: CELL"),
        (["load", "xyz"], "no card store in runs"),
        (["load", "a", "b", "store=cells"], "name one cell, by its id or by its settings, not a and b"),
        (["load", "a", "seed=2", "store=cells"], "not a and seed=2"),
        (
            ["load", "seed=2", "store=cells"],
            "is not finished in the store cells; train it with `weightaug run`",
        ),
        (["load", "xyz", "store=cells"], "it has no cells"),
        (["export", "xyz"], "arguments are required: --out"),
    ],
)
def test_bad_input(weightaug: CommandLine, arguments: list[str], said: str) -> None:
    Path("cells/cards").mkdir(parents=True)
    done = weightaug(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_check_needs_the_data_set_and_loading_does_not(weightaug: CommandLine, tmp_path: Path) -> None:
    settings = ["dataset=cifar10", "model.width=4", "recipe.batch_size=32", "recipe.epochs=1"]
    few = Images(torch.zeros(32, 3, 32, 32, dtype=torch.uint8), torch.arange(32) % 10)
    cell = trained(Store(tmp_path / "runs"), settings, DataSet(few, few, (0.5,) * 3, (0.5,) * 3)).cell
    assert weightaug("load", cell.id).returncode == 0
    checked = weightaug("load", cell.id, "--check", "data=nowhere")
    assert checked.returncode == 2
    assert "WEIGHTAUG_DATA" in checked.stderr
    assert "loading does not" in checked.stderr


def test_images_of_your_own_are_needed_for_the_check_alone(weightaug: CommandLine, tmp_path: Path) -> None:
    images, labels = torch.randint(256, (60, 1, 8, 8), dtype=torch.uint8), torch.arange(60) % 3
    save_file({"images": images, "labels": labels}, "own.safetensors")
    settings = ["dataset=tensors", "dataset.path=own.safetensors", "method=was", "recipe.epochs=1"]
    settings += ["recipe.batch_size=16", "evaluation.batch_size=5", "device=cpu", "threads=1"]
    settings += ["dataset.corruptions={contrast: [0.4, 0.3, 0.2, 0.1, 0.05]}", "wandb=disabled"]
    done = weightaug("run", *settings)
    assert done.returncode == 0, done.stderr
    checked = weightaug("load", *settings, "--check")
    assert checked.returncode == 0, checked.stderr + checked.stdout
    assert "DIFFERS" not in checked.stdout
    cell_id = next(Path("runs/cards").glob("*.json")).stem
    Path("own.safetensors").unlink()
    assert "3 classes" in weightaug("load", cell_id).stdout
    assert weightaug("export", cell_id, "--out", "mine").returncode == 0
    lost = weightaug("load", "mine", "--check")
    assert lost.returncode == 2
    assert "name the cell by its settings for --check, with dataset.path" in lost.stderr


def test_a_changed_card_is_noticed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cell = trained(store, []).cell
    path = store.cards / f"{cell.id}.json"
    card = json.loads(path.read_text())
    card["cell"]["seed"] = 1
    path.write_text(json.dumps(card))
    with pytest.raises(UserError, match="was changed: the settings in it are not those of its cell"):
        benchmarks.load(cell.id, store=tmp_path)
    card["cell"]["method"]["name"] = "sgdd"
    path.write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"can't be read as a cell of this version: .* 'sgd'"):
        benchmarks.load(cell.id, store=tmp_path)
    path.write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        benchmarks.load(cell.id, store=tmp_path)
    assert path.read_text() == "{"


def test_a_cell_of_an_older_protocol_version_is_loaded_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cell_id = trained(Store(tmp_path), []).cell.id
    monkeypatch.setattr("benchmarks.cell.PROTOCOL_VERSION", 99)
    monkeypatch.setattr("benchmarks.export.trained.PROTOCOL_VERSION", 99)
    assert load([])[0].id != cell_id
    assert benchmarks.load(cell_id, store=tmp_path)[2]["id"] == cell_id
    assert f"protocol version {PROTOCOL_VERSION}, this program has 99" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "part", "shape"),  # of the large networks a part each: the whole takes long
    [
        ("vit_tiny", "", (1, 8, 8)),
        ("resnet18_was", "layer2", (64, 8, 8)),
        ("googlenet_was", "a3", (192, 8, 8)),
    ],
)
def test_onnx_computes_what_the_network_computes(
    name: str, part: str, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    whole = load([f"model={name}"])[0].model.build(num_classes=10, in_channels=shape[0], image_size=shape[1])
    network = whole.get_submodule(part)
    with torch.no_grad():
        for parameter in network.parameters():  # heads and scales that start at zero would hide a difference
            parameter.add_(0.02 * torch.randn_like(parameter))
    example = torch.zeros(2, *shape)
    export_onnx(network, example, tmp_path / "a.onnx")
    assert network.training
    assert check_onnx(network.eval(), example, tmp_path / "a.onnx") < 1e-5
    parameter.data.add_(0.1)
    assert check_onnx(network, example, tmp_path / "a.onnx") > 1e-2


def test_onnx_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UserError, match="Branching can't be exported to ONNX: ") as caught:
        export_onnx(Branching(), torch.zeros(2, 3), tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)
    missing = {"onnxscript", "onnxruntime"}
    find = importlib.util.find_spec
    monkeypatch.setattr(
        to_onnx.importlib.util, "find_spec", lambda name: None if name in missing else find(name)
    )
    assert check_onnx(nn.Identity(), torch.zeros(2, 3), tmp_path / "a.onnx") is None
    with pytest.raises(UserError, match=r"needs onnxscript; install: pip install 'weightaug\[onnx\]'"):
        export_onnx(nn.Identity(), torch.zeros(2, 3), tmp_path / "a.onnx")
    assert not any(tmp_path.iterdir())
