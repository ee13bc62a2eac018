"""`weightaug export`: a trained cell as a folder that stands on its own.

model.safetensors   the weights, byte for byte as in the store
card.json           the cell's card
README.md           what it is, how to load it, what was measured
model.onnx          with --onnx: the model as it is
shadow.onnx         with --onnx, for WAS: the model with one draw of shadow weights in place
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from benchmarks.data.files.checks import digest
from benchmarks.errors import UserError
from benchmarks.export.to_onnx import BATCHES, OPSET, TOLERANCE, check_onnx, export_onnx
from benchmarks.export.trained import CARD, WEIGHTS, Trained
from benchmarks.markdown import template
from benchmarks.reports.measures import SEVERITIES, corruption_types, measure
from benchmarks.results.card import ATTACKS, MEASURED, Card, DamagedCardError
from benchmarks.results.files import write_json, write_text
from benchmarks.results.reading import parse_card
from weightaug import WAS, materialise
from weightaug.method import Method

README = "README.md"


@dataclass(frozen=True)
class OnnxFile:
    """One ONNX file of an export: what it holds, and how far onnxruntime's logits are from torch's."""

    name: str
    about: str
    difference: float | None  # relative to the largest logit; None: onnxruntime is not installed

    @property
    def agrees(self) -> bool:
        return self.difference is None or self.difference <= TOLERANCE


def export(trained: Trained, folder: Path, onnx: bool = False) -> list[OnnxFile]:
    """Write the folder; returns its ONNX files.

    Raises:
        UserError: the folder holds something else, the weights are damaged, or ONNX needs a package.
    """
    model, method = trained.build("cpu")
    _check_free(folder, trained)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as name:
        partial = Path(name)
        shutil.copyfile(trained.path, partial / WEIGHTS)
        files = _onnx_files(trained, model, method, partial) if onnx else []
        write_text(partial / README, readme(trained, model, files))
        write_json(partial / CARD, trained.card)
        for file in sorted(partial.iterdir(), key=lambda file: file.name == CARD):
            file.replace(folder / file.name)  # the card last: a folder that has one is whole
    return files


def _check_free(folder: Path, trained: Trained) -> None:
    """Whether ``folder`` is empty, not there, or an earlier export of the same cell."""
    try:
        if not folder.exists() or all(file.name.startswith(".") for file in folder.iterdir()):
            return
        if parse_card(folder / CARD)["id"] == trained.card["id"]:
            return
    except (FileNotFoundError, NotADirectoryError, DamagedCardError):
        pass
    raise UserError(f"--out {folder} holds something else; choose a new or an empty folder")


def _onnx_files(trained: Trained, model: nn.Module, method: Method, folder: Path) -> list[OnnxFile]:
    modules = {"model.onnx": ("the model as it is", model)}
    if isinstance(method, WAS):
        about = (
            "the model with the shadow weights K T(W) of one fixed draw, the first of shadow inference (DOM), "
            "and without the kernels' zero rows and columns"
        )
        modules["shadow.onnx"] = (about, materialise(method, method.draw("predict", 0)))
    inputs = trained.weights.inputs
    example = torch.zeros(2, inputs["channels"], inputs["size"], inputs["size"])
    files = []
    for name, (about, module) in modules.items():
        export_onnx(module, example, folder / name)
        files.append(OnnxFile(name, about, check_onnx(module, example, folder / name)))
    return files


def readme(trained: Trained, model: nn.Module, files: list[OnnxFile]) -> str:
    """The model card in Markdown: config, metrics, hashes, provenance, how to load it."""
    card, weights = trained.card, trained.weights
    return template("export", "model_card.md.j2").render(
        card=card,
        cell=trained.cell,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        inputs=weights.inputs,
        config=_lines(card["cell"]),
        metrics=[row for mode in card["metrics"] for row in _rows(card, mode)],
        types=corruption_types(card, next(iter(card["metrics"]))),
        sha256=weights.sha256,
        file_sha256=digest(trained.path, "sha256"),
        files=files,
        opset=OPSET,
        batches=BATCHES,
    )


def _rows(card: Card, mode: str) -> list[list[str]]:
    """The rows of the table of metrics for one inference mode."""
    places = {"clean": "clean", **{f"severity.{s}": f"severity {s}" for s in SEVERITIES}}
    places |= {"corrupted": "all corrupted", **{f"attack.{name}": name for name in ATTACKS}}
    measured = {path: [measure(card, f"{path}.{key}", mode) for key in MEASURED] for path in places}
    return [
        [mode, places[path], *(f"{number:.4g}" for number in numbers)]
        for path, numbers in measured.items()
        if None not in numbers
    ]


def _lines(config: dict[str, Any]) -> list[str]:
    """A card's config as YAML, a group a block."""
    return yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=100).splitlines()
