"""ONNX: any module as a file, and the file checked against the module."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.errors import UserError, one_line
from benchmarks.results.files import atomic

OPSET = 20
"""The version of ONNX's operators: the exporter's own in torch 2.11 to 2.15, so that nothing is converted."""
BATCHES = (1, 2, 5)
"""The sizes that the check runs: the batch axis of the file is free."""
TOLERANCE = 1e-3
"""The largest difference that counts as rounding, relative to the largest logit (and absolute below 1)."""


def export_onnx(module: nn.Module, example: Tensor, path: Path) -> None:
    """Write ``module`` in inference mode: input ``images`` [batch, ...], output ``logits`` [batch, ...].

    Through ``torch.export``, with opset 20 and weights inside the file. Nothing of this machine is in it: the
    exporter's notes on source files are taken out.

    Args:
        module: anything that maps one tensor to one tensor; its mode is as before afterwards.
        example: an input with at least two examples, so that no size 1 is taken for fixed.

    Raises:
        UserError: the packages for it are missing, or the module can't be exported.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX export needs {' and '.join(missing)}; install: pip install 'weightaug[onnx]'")
    training = {part: part.training for part in module.modules()}
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # of torch about itself
            program = torch.onnx.export(
                module.eval(),
                (example,),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise UserError(f"{type(module).__name__} can't be exported to ONNX: {one_line(error)}") from error
    finally:
        for part, mode in training.items():
            part.training = mode
    assert program is not None  # only dynamo=False gives none
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
    with atomic(path) as partial:
        program.save(partial)


@torch.no_grad()
def check_onnx(module: nn.Module, example: Tensor, path: Path) -> float | None:
    """The largest difference between the file's and the module's outputs on random inputs like ``example``,
    relative to the largest output where that is above 1; None where onnxruntime is not installed.

    Args:
        module: what was exported, in inference mode.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for count in BATCHES:
        x = torch.randn(count, *example.shape[1:], generator=generator)
        ours = module(x)
        theirs = torch.from_numpy(session.run(None, {"images": x.numpy()})[0])
        worst = max(worst, float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1)))
    return worst
