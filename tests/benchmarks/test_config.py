"""From override strings to a cell: types, ids and what bad input gets."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from benchmarks.config import cell_of, load, schema
from benchmarks.errors import UserError
from benchmarks.registry import entries


def test_overrides_reach_their_places() -> None:
    cell, runtime = load(
        ["method=was", "method.translate=0.2", "recipe.epochs=3", "seed=7", "device=cpu", "workers=2"]
    )
    assert cell.method.name == "was"
    assert cell.method.arguments["translate"] == 0.2
    assert cell.method.changed == {"translate": 0.2}
    assert (cell.recipe.epochs, cell.seed) == (3, 7)
    assert (runtime.device, runtime.workers) == ("cpu", 2)


def test_id_depends_on_what_changes_numbers_and_on_nothing_else() -> None:
    base = load(["method=was"])[0]
    assert load(["method=was", "device=cpu", "store=elsewhere", "wandb=disabled"])[0].id == base.id
    assert load(["method=was", "method.translate=0.3"])[0].id == base.id  # 0.3 is the default
    others = ["seed=1", "method.translate=0.2", "recipe.epochs=11", "model=vit_tiny", "scale=reduced"]
    others += [
        "evaluation.batch_norm=batch",
        "dataset.corruptions.contrast=[1,1,1,1,1]",
    ]
    ids = {load(["method=was", other])[0].id for other in others}
    assert len(ids) == len(others)
    assert base.id not in ids


def test_a_new_setting_with_a_default_keeps_old_ids() -> None:
    cell = load(["method=was"])[0]
    method = dataclasses.replace(cell.method, arguments={**cell.method.arguments, "brand_new": 1.0})
    assert dataclasses.replace(cell, method=method).id == cell.id


def test_ids_do_not_move_between_versions_of_the_code() -> None:
    # If this fails, everybody's finished cells are lost to them: raise PROTOCOL_VERSION knowingly instead.
    assert load(["method=sgd", "dataset.corruptions={}"])[0].identity() == {
        "protocol_version": 2,
        "method": {"name": "sgd"},
        "model": {"name": "resnet_tiny", "blocks": "1,1,1", "width": 8},
        "dataset": {"name": "digits", "corruptions": {}},
        "recipe": load([])[0].identity()["recipe"],
        "evaluation": {},
        "protocol": "official",
        "scale": "smoke",
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("method=wass", "did you mean 'was'"),
        ("model=resnet_tny", "did you mean 'resnet_tiny'"),
        ("recipe.epoch=3", "did you mean 'epochs'"),
        ("method.trnslate=0.1", "did you mean 'translate'"),
        ("sed=1", "did you mean 'seed'"),
        ("recipe.epochs=many", "epochs must be a whole number"),
        ("recipe.epochs=0", "must be at least 1"),
        ("seed=-1", "whole number from 0"),
        ("seed=1.5", "whole number"),
        ("method.per_kernel=3", "true or false"),
        ("dataset.corruptions.contrast=[1]", "5 parameters"),
        ("dataset.corruptions.fg=[1,2,3,4,5]", "unknown corruption 'fg'"),
        ("device=tpu", "unknown device 'tpu'"),
        ("wandb=of", "unknown value of wandb 'of'"),
        ("scale=small", "unknown value of scale"),
        ("recipe", "can't read"),
        ("seed=1,2", "only plain key=value"),
    ],
)
def test_bad_input_is_one_line_that_names_the_mend(override: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        load(["method=was", override])[0].dataset.build()
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_hyper_parameters_are_checked_by_the_method_itself() -> None:
    import torch

    cell = load(["method=dropout", "method.p=1.5"])[0]
    with pytest.raises(UserError, match=r"dropout: .*p"):
        cell.method.build(model=torch.nn.Sequential(torch.nn.Linear(2, 2)), seed=0)


def test_schema_follows_the_signature() -> None:
    fields = {field.name: field.type for field in dataclasses.fields(schema("weightaug.WAS"))}
    assert fields["translate"] is float
    assert {"model", "seed", "random", "draws"}.isdisjoint(fields)


def names(group: str) -> list[str]:
    return [name for name in entries(group) if name not in ("external", "folder", "tensors")]


@pytest.mark.parametrize(
    "overrides",
    [
        *([f"{group}={name}"] for group in ("method", "model", "dataset", "recipe") for name in names(group)),
        ["model=torchvision/resnet18", "model.stem=native", "method=damp", "method.sigma=0.3", "seed=7"],
        ["evaluation.batch_norm=batch", "dataset.corruptions={contrast: [1, 2, 3, 4, 5]}", "scale=full"],
    ],
    ids=" ".join,
)
def test_a_cell_is_made_again_from_its_card(overrides: list[str]) -> None:
    cell = load(overrides)[0]
    again = cell_of(json.loads(json.dumps(cell.as_dict())))
    assert again == cell
    assert again.id == cell.id
    assert again.contradiction(cell.as_dict()) is None


def test_a_setting_that_an_old_card_lacks_has_its_default() -> None:
    config = load(["recipe=vit_smoke", "method=damp"])[0].as_dict()
    del config["recipe"]["clip_norm"], config["method"]["sigma"]
    again = cell_of(config)
    assert again.recipe.clip_norm is None  # not the recipe's 1.0
    assert again.method.arguments["sigma"] == load(["method=damp"])[0].method.arguments["sigma"]


@pytest.mark.parametrize("config", [{}, {"method": 3}, {"method": {"name": "sgd"}}])
def test_a_config_that_is_none(config: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="lacks or garbles"):
        cell_of(config)
