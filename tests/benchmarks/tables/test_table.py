"""Tables as data: their cells, and what a wrong file gets."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.config import load
from benchmarks.data.batches import steps_per_epoch
from benchmarks.errors import UserError
from benchmarks.reports.aggregates import C_BAR, STANDARD
from benchmarks.tables.claims import Ordering, Ratio
from benchmarks.tables.published import load_published
from benchmarks.tables.reading import load_table

CONFIGS = Path(__file__).parents[3] / "configs"
TABLES = sorted((CONFIGS / "table").rglob("*.yaml"))

SMALL: dict[str, Any] = yaml.safe_load("""
    title: A table
    description: for tests
    published: x/y
    baseline: plain
    columns:
      - {name: clean, label: Clean, metric: clean.error, margin: 1}
    rows:
      - {name: plain, label: Plain, overrides: [method=sgd]}
      - {name: noisy, label: Noisy, published: noisy, overrides: [method=damp, recipe.epochs_factor=2]}
      - {name: noisy-shadow, label: Shadow, mode: shadow, overrides: [method=damp, recipe.epochs_factor=2]}
    claims:
      - {name: a, kind: ordering, text: t, source: s, metric: corrupted.error, lower: noisy, higher: plain}
      - {name: b, kind: ratio, text: t, source: s, metric: cost.seconds_per_epoch, numerator: noisy,
         denominator: plain, expected: 1.0, margin: 0.1}
    scales:
      full: {seeds: 1, needs_gpu: true, panels: [{name: big, label: Big}]}
      smoke:
        seeds: 2
        overrides: [dataset=digits]
        panels:
          - {name: m, label: M, overrides: [model=m], methods: {damp: [method.sigma=0.1]}}
          - {name: n, label: N, overrides: [model=n]}
""")


@pytest.mark.parametrize("path", TABLES, ids=[str(path.relative_to(CONFIGS)) for path in TABLES])
def test_every_table_loads_and_points_to_what_was_published(path: Path) -> None:
    table = load_table(path)
    assert table.name == str(path.relative_to(CONFIGS / "table").with_suffix(""))
    if table.published:
        published = load_published(CONFIGS / "published" / f"{table.published}.yaml")
        table.check_published(published)
    for scale in table.scales.values():
        assert table.cells(scale.name, range(scale.seeds))


def test_table2_has_the_cells_of_six_methods_on_two_models() -> None:
    table = load_table(CONFIGS / "table" / "damp" / "table2.yaml")
    cells = table.cells("smoke", range(3))
    assert len(cells) == 2 * 8 * 3  # nine rows, of which the two of WAS share a cell
    assert {row for cell in cells for row in cell.rows} == {row.name for row in table.rows}
    assert len({cell.overrides for cell in cells}) == len(cells)
    assert ("was-aom", "was-dom") in {cell.rows for cell in cells}
    assert table.scale("full").needs_gpu and not table.scale("smoke").needs_gpu


def test_cells_are_overrides_in_order_and_equal_rows_share_one() -> None:
    cells = load_table(SMALL, "small").cells("smoke", [3, 5])
    assert [(cell.panel, cell.seed, cell.rows) for cell in cells[:4]] == [
        ("m", 3, ("plain",)),
        ("m", 3, ("noisy", "noisy-shadow")),
        ("n", 3, ("plain",)),
        ("n", 3, ("noisy", "noisy-shadow")),
    ]
    expected = ("dataset=digits", "model=m", "method=damp", "recipe.epochs_factor=2", "method.sigma=0.1")
    assert cells[1].overrides == (*expected, "seed=3", "scale=smoke")
    assert cells[3].overrides == ("dataset=digits", "model=n", *expected[2:4], "seed=3", "scale=smoke")
    assert len(cells) == 8


def test_claims_and_defaults_are_typed() -> None:
    table = load_table(SMALL, "small")
    ordering, ratio = table.claims
    assert isinstance(ordering, Ordering) and ordering.rows == ("noisy", "plain")
    assert isinstance(ratio, Ratio) and ratio.rows == ("noisy", "plain")
    assert table.columns[0].margin == 1.0 and isinstance(table.columns[0].margin, float)
    assert table.row("plain").mode == "plain" and table.row("plain").published is None


def set_at(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(raw: Any) -> None:
        for key in path[:-1]:
            raw = raw[key]
        raw[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_at("titel", value="x"), "unknown key in t: 'titel'; did you mean 'title'"),
        (set_at("columns", 0, "metrics", value="x"), "did you mean 'metric'"),
        (
            set_at("columns", 0, "metric", value="clean.eror"),
            "unknown metric in t, column clean: 'clean.eror'; did you",
        ),
        (set_at("columns", 0, "metric", value="claen.error"), "did you mean 'clean.error'"),
        (set_at("columns", 0, "metric", value="clean"), "needs 2 parts"),
        (set_at("columns", 0, "metric", value="severity.6.error"), "needs a severity from 0 to 5"),
        (set_at("columns", 0, "margin", value=0), "column clean: the margin must be above 0"),
        (set_at("columns", value=[]), "columns must be a list with at least one entry"),
        (set_at("rows", 1, "overide", value=[]), "did you mean 'overrides'"),
        (set_at("rows", 1, "name", value="plain"), "has the name 'plain' twice"),
        (set_at("rows", 1, "label", value="Plain"), "two rows are shown as 'Plain'"),
        (set_at("rows", 1, "overrides", value="method=damp"), "must be a list"),
        (set_at("claims", 0, "kind", value="order"), "unknown kind .*did you mean 'ordering'"),
        (set_at("claims", 0, "lower", value="nosy"), "claim a: 'nosy'; did you mean 'noisy'"),
        (set_at("claims", 0, "expected", value=1.0), "unknown key in t: claims\\[0\\]: 'expected'"),
        (set_at("claims", 1, "metric", value="cost.secs_per_epoch"), "did you mean 'cost.seconds_per_epoch'"),
        (set_at("claims", 1, "margin", value=-0.1), "claim b: the margin must be above 0"),
        (set_at("baseline", value="sgd"), "baseline: 'sgd'"),
        (set_at("scales", value={}), "needs at least one scale"),
        (set_at("scales", "smoke", "seed", value=1), "did you mean 'seeds'"),
        (set_at("scales", "smoke", "seeds", value=0), "seeds must be at least 1"),
        (set_at("scales", "smoke", "panels", value=None), "panels must be a list"),
    ],
)
def test_a_wrong_table_is_named(change: Callable[[dict[str, Any]], None], message: str) -> None:
    raw = copy.deepcopy(SMALL)
    change(raw)
    with pytest.raises(UserError, match=message) as error:
        load_table(raw, "t")
    assert "\n" not in str(error.value)


def test_unknown_scale_and_row() -> None:
    table = load_table(SMALL, "small")
    with pytest.raises(UserError, match="unknown scale of small 'smok'; did you mean 'smoke'"):
        table.cells("smok", [0])
    with pytest.raises(UserError, match="did you mean 'noisy'"):
        table.row("noissy")


def test_nothing_heavy_is_imported_with_tables_and_measures() -> None:
    code = (
        "import sys, benchmarks.reports, benchmarks.reports.measures, benchmarks.tables.table\n"
        "heavy = {'torch', 'numpy', 'scipy', 'statsmodels', 'matplotlib', 'jinja2', 'hydra'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_report_needs_no_torch() -> None:
    code = "import sys, benchmarks.reports.render; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", TABLES, ids=[str(path.relative_to(CONFIGS)) for path in TABLES])
def test_every_cell_of_every_scale_can_be_composed(path: Path) -> None:
    table = load_table(path)
    assert {"full", "reduced", "smoke"} == set(table.scales)
    for scale in table.scales:
        here = table.at(scale)
        cells = [load(cell.overrides)[0] for cell in here.cells(scale, [0])]
        assert len({cell.id for cell in cells}) == len(cells)  # no two cells are the same by another name
        assert here.rows and here.columns and here.claims


def test_the_corruptions_of_the_damp_tables_are_those_of_their_sources() -> None:
    def read(name: str) -> dict[str, Any]:
        return dict(yaml.safe_load((CONFIGS / "corruption" / f"{name}.yaml").read_text()))

    both, sources = read("imagenet_c_and_cbar"), read("imagenet") | read("imagenet_cbar")
    assert set(both) == {*STANDARD, *C_BAR}
    assert both == {name: sources[name] for name in both}


def test_the_hyper_parameters_are_the_papers() -> None:
    """The table of hyper-parameters in the DAMP paper's appendix F, against the cells that full scale trains."""
    expected = {
        ("figure4", "cifar10"): (300, 128, 0.1, 5e-4, 0.2, 0.045, 1.0),
        ("figure4", "cifar100"): (300, 128, 0.1, 5e-4, 0.1, 0.06, 2.0),
        ("figure4", "tinyimagenet"): (150, 128, 0.1, 2.5e-4, 0.2, 0.2, 3.0),
        ("table1", "resnet50"): (90, 2048, 0.8, 1e-4, 0.1, 0.05, 1.5),
        ("table2", "vit-s16"): (100, 1024, 1e-3, 0.1, 0.25, 0.6, 3.0),
        ("table3", "vit-s16"): (500, 1024, 1e-3, 0.1, 0.1, 0.015, 0.4),
        ("table3", "vit-b16"): (275, 1024, 1e-3, 0.1, 0.15, 0.025, 0.6),
    }
    for (name, panel), (epochs, batch, rate, decay, sigma, sam, asam) in expected.items():
        table = load_table(CONFIGS / "table" / "damp" / f"{name}.yaml").at("full")
        planned = [cell for cell in table.cells("full", [0]) if cell.panel == panel]
        cells = {cell.rows[0].removesuffix("-1x"): load(cell.overrides)[0] for cell in planned}
        recipe = cells["damp"].recipe
        assert (recipe.total_epochs, recipe.batch_size, recipe.learning_rate, recipe.weight_decay) == (
            epochs, batch, rate, decay,
        )  # fmt: skip
        assert cells["damp"].method.arguments["sigma"] == sigma
        assert (cells["sam"].method.arguments["rho"], cells["asam"].method.arguments["rho"]) == (sam, asam)
        assert all(cells[row].method.arguments["sub_batches"] == 8 for row in ("damp", "sam", "asam"))
        separate = {row for row in ("sam", "asam") if cells[row].method.arguments["batch_norm"] == "separate"}
        assert separate == ({"sam", "asam"} if panel in ("tinyimagenet", "resnet50") else set())


IMAGENET_RESNET: dict[str, Any] = {
    "optimizer": "sgd", "learning_rate": 0.8, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4,
    "decay": "kernels", "clip_norm": None, "schedule": "warmup_cosine_floor", "learning_rate_ratio": 1e-3,
    "warmup_epochs": 5, "warmup_steps": 0, "batch_size": 2048, "drop_last": True, "crop_padding": 0, "flip": True,
    "min_crop_area": 0.08, "crop_boxes": "official", "min_crop_covered": 0.1, "randaugment": "none",
    "mixup_lambda": None, "mixup_alpha": None, "precision": "float32",
}  # fmt: skip
IMAGENET_VIT = IMAGENET_RESNET | {
    "optimizer": "adamw", "learning_rate": 1e-3, "betas": [0.9, 0.999], "weight_decay": 0.1, "clip_norm": 1.0,
    "schedule": "warmup_cosine", "warmup_epochs": 0, "warmup_steps": 10_000, "batch_size": 1024,
    "min_crop_area": 0.05, "min_crop_covered": 0.0,
}  # fmt: skip
IMAGENET_ADVANCED = IMAGENET_VIT | {
    "randaugment": "official", "randaugment_layers": 2, "randaugment_magnitude": 10, "mixup_lambda": 0.8,
}  # fmt: skip
IMAGENET_EPOCHS = {
    ("table1", "resnet50"): (IMAGENET_RESNET, {"dropout": 90, "damp": 90, "sam": 90, "asam": 90}, 0.05),
    ("table2", "vit-s16"): (
        IMAGENET_VIT,
        {"dropout-1x": 100, "dropout-2x": 200, "damp-1x": 100, "damp-2x": 200, "sam": 100, "asam": 100},
        0.1,
    ),
    ("table3", "vit-s16"): (IMAGENET_ADVANCED, {"dropout": 500, "damp": 500, "sam": 300, "asam": 300}, 0.1),
    ("table3", "vit-b16"): (IMAGENET_ADVANCED, {"dropout": 275, "damp": 275, "sam": 150, "asam": 150}, 0.1),
}
IMAGENET_SETS = ["imagenet_a", "imagenet_cartoon", "imagenet_d", "imagenet_drawing", "imagenet_hard",
                 "imagenet_sketch"]  # fmt: skip
MODELS = {"resnet50": "resnet50", "vit-s16": "vit_s16", "vit-b16": "vit_b16"}


@pytest.mark.parametrize(("name", "panel"), IMAGENET_EPOCHS)
def test_the_imagenet_cells_are_the_papers_in_every_setting(name: str, panel: str) -> None:
    """All that papers and configs of the authors say of training and testing on ImageNet."""
    table = load_table(CONFIGS / "table" / "damp" / f"{name}.yaml").at("full")
    planned = [cell for cell in table.cells("full", [0]) if cell.panel == panel]
    cells = {row: load(cell.overrides)[0] for cell in planned for row in cell.rows}
    recipe, epochs, rate = IMAGENET_EPOCHS[name, panel]
    constants = (
        [0.5, 0.5, 0.5] if panel.startswith("vit") else None
    )  # None: (.485, .456, .406), (.229, .224, .225)
    for row, count in epochs.items():
        cell = cells[row]
        assert {key: getattr(cell.recipe, key) for key in recipe} == recipe
        assert cell.recipe.total_epochs == count
        assert cell.dataset.arguments["mean"] == cell.dataset.arguments["std"] == constants
        assert cell.dataset.arguments["corrupted"] == "published"
        assert cell.dataset.arguments["stored_side"] == 256  # a deviation that the table names
        assert cell.evaluation.shifted == IMAGENET_SETS
        assert cell.evaluation.fgsm_epsilon == 2 / 224
        assert cell.evaluation.batch_norm == "running"
        assert cell.model.name == MODELS[panel]
        if row.startswith("dropout"):
            assert cell.method.arguments["p"] == rate
    steps = steps_per_epoch(1_281_167, cells["sam"].recipe)
    assert steps == (625 if panel == "resnet50" else 1251)
    assert any("shorter side of 256" in note for note in table.scale("full").notes)
    assert any("antialiased" in note for note in table.scale("full").notes)


def test_every_size_of_the_authors_networks() -> None:
    sizes = {"vit_s16": (384, 12, 6, 1536), "vit_b16": (768, 12, 12, 3072)}
    for name, expected in sizes.items():
        arguments = load([f"model={name}", "dataset=imagenet"])[0].model.arguments
        assert tuple(arguments[key] for key in ("width", "depth", "heads", "mlp")) == expected
        assert arguments["patch"] == 16
