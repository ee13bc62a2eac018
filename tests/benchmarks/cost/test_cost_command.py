"""`weightaug cost`: what it prints and returns, and docs/models.md, which it writes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from command_line import ROOT, CommandLine
from golden_files import SELECTION, load_golden
from torch import Tensor, nn

from benchmarks.cost.network import measure
from benchmarks.cost.network_text import model_row, models_page
from benchmarks.registry import EXTERNAL, entries

PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
WAS_NETWORKS = {  # our name: the golden files'
    "vgg16_was": "vgg16_2d_10",
    "resnet18_was": "resnet18_10",
    "resnet34_was": "resnet34_10",
    "resnet50_was": "resnet50_10",
    "googlenet_was": "googlenet_10",
    "mobilenetv2_was": "mobilenetv2_10",
    "efficientnet_lite0_was": "efficientnet_lite0_10",
}
DAMP_NETWORKS = json.loads((SELECTION / "damp_networks.json").read_text())["nets"]


def page_rows() -> dict[str, list[str]]:
    """The cells of the page's rows by model."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row for row in rows}


@pytest.mark.parametrize("name", WAS_NETWORKS)
def test_networks_of_the_was_authors(name: str) -> None:
    """Their multiply-adds and shadow layers, and the row of the page."""
    file = "was_resnet50" if "resnet50" in name else "was_networks"
    published = load_golden(file)[1]["nets"][WAS_NETWORKS[name]]
    cost = measure([f"model={name}"])
    assert cost.forward.macs == published["conv_macs"] + published["linear_macs"]
    assert cost.forward.flops == 2 * cost.forward.macs == cost.forward.torch_flops
    assert len(cost.shadow_layers) == published["shadow_convs"]
    assert cost.shadow_macs == published["shadow_conv_macs"]
    assert model_row(cost) in PAGE


@pytest.mark.parametrize("name", ["resnet18_cifar", "resnet_tiny", "resnet_tiny_was", "vit_tiny"])
def test_the_page_is_current(name: str) -> None:
    assert model_row(measure([f"model={name}"])) in PAGE, "run `weightaug cost --all > docs/models.md`"


def test_the_page_has_every_model() -> None:
    assert page_rows().keys() | {EXTERNAL} == entries("model").keys()
    head, text = models_page([]), PAGE.split("\n| `")[0] + "\n"
    assert head == text
    for name, row in page_rows().items():
        assert row[1] == entries("model")[name].description
        assert row[2].startswith(f"{entries('model')[name].made_for}, ")


@pytest.mark.parametrize("name", DAMP_NETWORKS)
def test_the_page_has_the_damp_authors_counts(name: str) -> None:
    row, authors = page_rows()[name], DAMP_NETWORKS[name]
    size = authors["image_size"]
    assert row[2].endswith(f"3 x {size} x {size}, {authors['classes']}")
    assert row[3] == f"{authors['parameters']:,}"
    assert row[4] == f"{authors['macs']:,}"
    assert row[5] == row[6] == f"{2 * authors['macs']:,}"


def test_text(weightaug: CommandLine) -> None:
    done = weightaug("cost", "model=resnet_tiny", "method=sam")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "resnet_tiny, one 1 x 8 x 8 image of digits, 10 classes"
    for label, number in [("parameters", "19,810"), ("MACs", "193,344"), ("FLOPs, fvcore", "386,688")]:
        assert any(line.startswith(label) and f" {number}" in line for line in lines)
    assert "layer1.0.conv1" in done.stdout
    one, eight = lines[-2:]
    assert one.split()[:4] == ["1", "2.000", "2.000", "2.000"]
    assert eight.split()[:4] == ["8", "2.000", "2.000", "2.000"]


def as_json(weightaug: CommandLine, *arguments: str) -> dict[str, Any]:
    done = weightaug("cost", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_json(weightaug: CommandLine) -> None:
    cost = as_json(weightaug, "model=vit_tiny", "method=was", "--batch", "16")
    assert cost["model"]["name"] == "vit_tiny"
    assert (cost["dataset"], cost["input_shape"], cost["num_classes"]) == ("digits", [1, 8, 8], 10)
    assert (cost["parameters"], cost["macs"], cost["flops"]) == (39_322, 154_080, 308_160)
    assert (cost["torch_flops"], cost["relative_difference"]) == (308_160, 0)
    assert (cost["tolerance"], cost["agree"]) == (0.02, True)
    assert cost["macs_by_operator"]["attention"] == 2 * 2 * 4**2 * 48
    assert cost["uncalled_modules"] == []
    assert "aten::gelu" in cost["uncounted_operators"]
    assert cost["shadow_layers"] == ["conv_proj"]
    training = cost["training"]
    assert (training["method"]["name"], training["batch"]) == ("was", 16)
    (step,) = training["steps"]
    assert step["sub_batches"] is None
    assert (
        1 <= step["forward_passes"] < 1.1
    )  # a crop of the kernels is a small matrix product, a shift is none


def test_modules_that_are_never_called(weightaug: CommandLine) -> None:
    """Blocks without a shortcut have a drop-connect for nothing; an identity is called although it does nothing."""
    cost = as_json(weightaug, "model=efficientnet_lite0_was", "model.width=0.1", "dataset=cifar10")
    assert "blocks.0.drop_connect" in cost["uncalled_modules"]
    assert as_json(weightaug, "model=resnet_tiny")["uncalled_modules"] == []  # its max-pool is an identity


def test_the_images_are_those_of_the_data_set(weightaug: CommandLine) -> None:
    own = as_json(weightaug, "model=resnet18_cifar", "model.width=4")
    assert (own["dataset"], own["input_shape"]) == ("cifar10", [3, 32, 32])
    other = as_json(weightaug, "model=resnet18_cifar", "model.width=4", "dataset=digits")
    assert other["input_shape"] == [1, 8, 8]
    assert other["macs"] < own["macs"] / 15


class Parted(nn.Module):
    """A product that torch counts and fvcore does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.product = Product()

    def forward(self, x: Tensor) -> Tensor:
        return self.product(self.conv(x)).mean((2, 3))


class Product(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensordot(x, self.weight, dims=([1], [1])).permute(0, 3, 1, 2)


def test_counters_that_differ_are_an_error_that_says_where(
    weightaug: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.models.resnet.build", lambda **_: Parted())
    done = weightaug("cost", "model=resnet_tiny")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "weightaug: warning: resnet_tiny: the counters differ by -52.63 %, more than 1%"
    )
    assert done.stderr.endswith(" in product\n")
    assert "product: 0 by fvcore, 2,880 by torch" in done.stdout
    assert "aten::tensordot 1" in done.stdout


class Unstackable(nn.Module):
    """Synchronised BatchNorm, and a product that M weight copies cannot do at once."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.weight = nn.Parameter(torch.ones(10, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,oc->no", self.norm(x), self.weight)


def test_a_method_that_the_network_cannot_take(
    weightaug: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.models.resnet.build", lambda **_: Unstackable())
    done = weightaug("cost", "model=resnet_tiny", "method=sam")
    assert done.returncode == 2
    assert done.stderr.startswith("weightaug: error: sam on resnet_tiny: einsum has no form")
    assert "use batch_norm='separate' or sub_batches=1" in done.stderr


BAD = [
    (["model=resnet18_cifr"], "did you mean 'resnet18_cifar'"),
    (["model=torchvision/swin_tt"], "did you mean swin_t"),
    (["model=torchvison/swin_t"], "did you mean 'torchvision'"),
    (["model=tim/convnext_atto"], "unknown model library 'tim'; did you mean 'timm'"),
    (["model=vit_s16", "dataset=digits"], "at least 16x16 pixels, got 8x8"),
    (["model=resnet50", "dataset=digits"], "at least 32x32 pixels, got 8x8"),
    (["model=resnet50_was", "dataset=digits"], "at least 16x16 pixels, got 8x8"),
    (
        ["model=torchvision/squeezenet1_0", "dataset=digits", "model.stem=native"],
        "the least that it takes is 32x32",
    ),
    (
        ["model=torchvision/resnet18", "model.options={groups:-1}", "dataset=digits"],
        "cannot take the options",
    ),
    (["model=vit_tiny", "model.depth=-1"], "depth=-1 must be above 0"),
    (["model=vit_tiny", "model.heads=0"], "heads=0 must be above 0"),
    (["model=vit_tiny", "model.mlp=-8"], "mlp=-8 must be above 0"),
    (["model=vit_tiny", "model.patch=0"], "patch=0 must be above 0"),
    (["model=vit_tiny", "model.dropout=1"], "dropout=1.0 must be a probability"),
    (["model=vit_tiny", "model.width=50"], "width=50 must be a multiple of 4"),
    (["model=vit_tiny", "model.depth=1.5"], "depth must be a whole number"),
    (["model=resnet_tiny", "model.width=0"], "width=0 must be above 0"),
    (["model=resnet_tiny", "model.blocks='2,-1'"], "blocks must be whole numbers above 0"),
    (["model=resnet_tiny", "model.shortcut=2"], "unknown shortcut '2'"),
    (["model=resnet_tiny", "model.padding=vald"], "unknown padding 'vald'"),
    (["model=preact_resnet18", "model.width=-64", "dataset=cifar10"], "width=-64 must be above 0"),
    (["model=vgg16_was", "model.hidden=0"], "hidden=0 must be above 0"),
    (["model=vgg16_was", "model.dropout=-0.5"], "dropout=-0.5 must be a probability"),
    (["model=googlenet_was", "model.width=0"], "width=0.0 must be above 0"),
    (["model=mobilenetv2_was", "model.width=-1"], "width=-1.0 must be above 0"),
    (["model=efficientnet_lite0_was", "model.drop_connect=1.5"], "drop_connect=1.5 must be a probability"),
    (["model=resnet50_was", "model.blocks='0'"], "blocks must be whole numbers above 0"),
    (["model=resnet50_was", "model.width=0"], "width=0 must be above 0"),
    (["model=resnet_tiny", "method=damp", "--batch", "4"], "raise --batch"),
    (["model=resnet_tiny", "method=damp", "--batch", "0"], "at least one image"),
    (["--all", "model=vit_tiny"], "--all takes no setting"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    weightaug: CommandLine, arguments: list[str], said: str
) -> None:
    done = weightaug("cost", *arguments)
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("weightaug: error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr


def test_a_batch_without_a_training_step_is_refused(weightaug: CommandLine) -> None:
    done = weightaug("cost", "model=resnet_tiny", "--batch", "4")
    assert done.returncode == 2 and "name the method too" in done.stderr
