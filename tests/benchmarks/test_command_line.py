"""The command line as a person meets it: every call is a process of its own in an empty folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import CommandLine, environment

QUICK = ["recipe.epochs=1", "wandb=disabled", "device=cpu", "threads=1"]


def test_help_needs_no_heavy_package(tmp_path: Path) -> None:
    code = (
        "import sys, benchmarks.cli\n"
        "try: benchmarks.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'hydra', 'omegaconf', 'wandb', 'fvcore', 'matplotlib', 'rich'}\n"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("set()\n")


def test_the_library_needs_torch_alone() -> None:
    code = (
        "import sys, torch\nbefore = set(sys.modules)\nimport weightaug, baselines\n"
        "ours = {'benchmarks', 'torchvision', 'hydra', 'omegaconf', 'yaml', 'wandb', 'fvcore', 'scipy', 'statsmodels',"
        " 'sklearn', 'matplotlib', 'jinja2', 'rich', 'filelock', 'psutil'}\n"
        "print(sorted(ours & {name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_lists_say_what_there_is(weightaug: CommandLine) -> None:
    methods = weightaug("list", "methods").stdout
    for name in ("sgd", "dropout", "sam", "asam", "was", "damp"):
        assert any(line.startswith(f"{name} ") and len(line.split()) > 3 for line in methods.splitlines())
    assert "damp/table2" in weightaug("list", "tables").stdout
    assert "digits" in weightaug("list", "datasets").stdout
    assert "FGSM" in weightaug("list", "evaluations").stdout
    assert "vit_tiny" in weightaug("list", "models").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list", "method"], "did you mean 'methods'"),
        (["reprodce", "damp/table2"], "did you mean 'reproduce'"),
        (["reproduce", "damp/table22"], "did you mean 'damp/table2'"),
        (["reproduce", "damp/figure2"], "unknown table"),
        (["reproduce", "damp/table2", "--scale", "smok"], "did you mean 'smoke'"),
        (["reproduce", "damp/table2", "--scale", "smoke", "--seeds", "0"], "at least one seed"),
        (["reproduce", "damp/table2", "--sclae", "smoke"], "unknown argument '--sclae'"),
        (["reproduce", "damp/table2", "--scale", "smoke", "device=cuda:99"], "device=cuda:99"),
        (["reproduce", "damp/table2", "--scale", "smoke", "--with", "sigma=1"], "a row needs a method"),
        (["reproduce", "damp/table2", "--scale", "smoke", "--with", "method=dmp"], "did you mean 'damp'"),
        (["report", "damp/table2", "--scale", "smoke"], "train a table first"),
        (["report", "damp/table2", "--scale", "smoke", "--cards", "nowhere"], "no such folder"),
        (["run", "method=dmp"], "did you mean 'damp'"),
        (["run", "method=damp", "method.sigmaa=1"], "did you mean 'sigma'"),
        (["run", "method=damp", "method.sigma=-1"], "sigma"),
        (["run", "method=damp", "method.sub_batches=0"], "sub_batches"),
        (["run", "method=was", "method.layers=nothing"], "matches no convolution"),
        (["run", "dataset=cifar10", "data=nowhere"], "WEIGHTAUG_DATA"),
        (["run", "dataset=imagenet"], "imagenet"),
        (["run", "recipe.schedule=linear"], "unknown schedule"),
        (["run", "recipe.warmup_epochs=3"], "has no warm-up"),
        (["run", "recipe.learning_rate=inf"], "finite number"),
        (["run", "method=damp", "method.sigma=nan"], "finite number"),
        (["run", "method=damp", "method.sigma.x=1"], "is a single value"),
        (["run", "method=damp", "recipe.batch_size=4"], "less than method.sub_batches=8"),
        (["run", "model.width=-3"], "width=-3 must be above 0"),
        (["run", "recipe.momentum=-1"], "recipe.momentum"),
        (["run", "recipe.betas=[0.9]"], "recipe.betas"),
        (["run", "recipe.clip_norm=0"], "must be above 0"),
        (["run", "recipe.warmup_epochs=-1"], "must not be negative"),
        (["run", "model=torchvision/resnt18"], "resnet18"),
        (["run", "protocol=corrected"], "unknown value of protocol"),
        (["run", "store=/proc/nowhere"], "can't be used"),
        (["reproduce", "damp/table2", "--scale", "smoke", "seed=7"], "chooses its own seed"),
        (["reproduce", "damp/table2", "--scale", "smoke", "model=resnet_tiny"], "chooses its own model"),
        (["reproduce", "damp/table2", "recipe.epochs=1"], "no setting can be changed"),
        (["reproduce", "damp/table2", "--scale", "smoke", "--reports", "/proc/nowhere"], "/proc/nowhere"),
        (["run", "model=resnet50"], "at least 32x32 pixels"),
        ([], "arguments are required"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    weightaug: CommandLine, arguments: list[str], said: str
) -> None:
    done = weightaug(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("weightaug: error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr


def test_cuda_where_there_is_none(weightaug: CommandLine) -> None:
    import torch

    done = weightaug("run", "device=cuda:7")
    assert done.returncode == (2 if torch.cuda.device_count() < 8 else 0)
    if not torch.cuda.is_available():
        assert "no CUDA device on this machine; use device=cpu" in done.stderr


def test_full_scale_names_all_that_is_missing(weightaug: CommandLine) -> None:
    done = weightaug("reproduce", "damp/table2", "device=cpu")
    assert done.returncode == 2
    for part in ("a CUDA device", "data set imagenet", "WEIGHTAUG_DATA", "SCALE=smoke"):
        assert part in done.stderr


def test_one_cell_leaves_a_card_and_is_not_run_twice(weightaug: CommandLine, tmp_path: Path) -> None:
    first = weightaug("run", "method=damp", "method.sigma=0.1", "seed=3", *QUICK)
    assert first.returncode == 0, first.stderr
    path = tmp_path / first.stdout.splitlines()[-1].removeprefix("card: ")
    card = json.loads(path.read_text())
    assert card["cell"]["method"] == {
        **card["cell"]["method"],
        "name": "damp",
        "sigma": 0.1,
        "sub_batches": 8,
    }
    assert card["cell"]["seed"] == 3
    assert len(card["metrics"]["plain"]["corrupted"]["contrast"]["ece"]) == 5
    assert card["cost"]["flops"] == 2 * card["cost"]["macs"] > 0
    assert card["cost"]["parameters"] == 19810
    assert card["cost"]["peak_memory_bytes"] > 1e7
    assert card["provenance"]["versions"]["torch"]
    assert card["provenance"]["command"].startswith("weightaug run method=damp")
    assert str(tmp_path) not in path.read_text()
    before = path.stat().st_mtime_ns
    again = weightaug("run", "method=damp", "method.sigma=0.1", "seed=3", *QUICK)
    assert "finished before" in again.stderr
    assert path.stat().st_mtime_ns == before


def test_a_damaged_card_is_set_aside_and_its_cell_run_again(weightaug: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / weightaug("run", *QUICK).stdout.splitlines()[-1].removeprefix("card: ")
    whole = json.loads(path.read_text())
    path.write_text(path.read_text()[:300])
    again = weightaug("run", *QUICK)
    assert again.returncode == 0
    assert "damaged card" in again.stderr
    assert json.loads(path.read_text())["metrics"] == whole["metrics"]  # and the numbers repeat exactly
    assert len(list((path.parent / "damaged").iterdir())) == 1


def test_batches_larger_than_the_data_are_the_whole_of_it(weightaug: CommandLine) -> None:
    large = ("recipe.batch_size=5000", "evaluation.batch_size=5000", "evaluation=attacks")
    done = weightaug(
        "run", *QUICK, *large, "dataset.split=validation", "evaluation.pgd_steps=1", "model=resnet_tiny"
    )
    assert done.returncode == 0, done.stderr
    assert "recipe.batch_size=5000 is more than the 1131 training images of digits" in done.stderr
    card = json.loads(Path(done.stdout.splitlines()[-1].removeprefix("card: ")).read_text())
    assert card["curve"][-1]["step"] == 1
    metrics = card["metrics"]["plain"]
    assert {metrics["clean"]["n"], *(found["n"] for found in metrics["attacks"].values())} == {126}
