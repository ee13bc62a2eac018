"""`weightaug dom` as a person uses it."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import CommandLine

SMALL = ("--network", "model=resnet_tiny_was", "--batches", "1", "--rounds", "2")
CELL = ("model.width=4", 'model.blocks="1"', "recipe.epochs=2", "device=cpu")


def test_report_from_start_to_end(weightaug: CommandLine, tmp_path: Path) -> None:
    done = weightaug("dom", *SMALL, "--budgets", "0.9", *CELL)
    assert done.returncode == 0, done.stderr
    assert "report: reports/dom/dom.md" in done.stdout
    text = (tmp_path / "reports" / "dom" / "dom.md").read_text()
    assert "| resnet_tiny_was | 3.76 | 78.4 | 26.1 | 43.5 | 34.8 | 21.5 | 10.7 |" in text
    assert "the very number of MACs that was computed" in text
    assert "| found for at most 90 % |" in text
    assert "weightaug dom --network model=resnet_tiny_was --batches 1 --rounds 2" in text
    assert str(tmp_path) not in text
    assert sorted(p.name for p in (tmp_path / "reports" / "dom").iterdir()) == [
        "dom.md",
        "measurements.json",
        "trade_off.png",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budgets", "1.2"], "--budgets 1.2: a share of the network's FLOPs is from 0 to 1, e.g. 0.8"),
        (["--budgets", "-0.1"], "--budgets -0.1: a share of the network's FLOPs is from 0 to 1, e.g. 0.8"),
        (["--budgets", "half"], "--budgets 'half': give numbers with commas between them, such as 0.7,0.8"),
        (["--budgets", "0.2"], "no draws cost as little as 0.2 of the network's FLOPs: the least is"),
        (["--batches", "0"], "--batches must be at least 1"),
        (["--batches", "1.5"], "--batches '1.5': give whole numbers"),
        (["--rounds", "-1"], "--rounds at least 0"),
        (["--network", "model=vgg16"], "unknown model 'vgg16'"),
        (["method=sgd"], "DOM needs shadow weights and SGD has none; use method=was"),
        (["model=vit_tiny", "method.layers=x"], "layers='x' matches no convolution"),
        (["method.transform=rotate"], "RandomAffine are not finitely many"),
        (["dataset=cifar10", "data=nowhere"], "cifar"),
    ],
)
def test_errors_before_anything_is_trained(
    weightaug: CommandLine, tmp_path: Path, arguments: list[str], message: str
) -> None:
    network = [] if "--network" in arguments else ["--network", "model=resnet_tiny_was"]
    done = weightaug("dom", *network, *arguments)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert "weightaug: training" not in done.stderr
    assert not (tmp_path / "reports").exists()
