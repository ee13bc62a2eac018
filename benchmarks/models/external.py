"""Any network of torchvision or timm by name: ``torchvision/resnet18``, ``timm/convnext_atto``.

Weights are never pretrained. A network made for 224x224 images loses a small image in its stem, so ``stem``
says what to do about it:

- ``native``: nothing;
- ``small``: a stem of a 7x7 convolution with stride 2 and a max-pool (ResNet, DenseNet, ...) becomes a 3x3
  convolution with stride 1 and no max-pool; a stem that cuts into patches (ConvNeXt, torchvision's Swin) gets
  the largest patch up to its own that leaves 8x8 patches, but at least 2x2 pixels where the stem is the only
  convolution (Swin), which would otherwise have no kernel to transform. Networks built for one image size (ViT,
  Swin of timm) and all others have no small stem;
- ``auto``: ``small`` for images up to 64x64 where the network has such a stem, otherwise ``native``.

Layers that are replaced start from torch's default initialisation, all others from the network's own.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.errors import UserError
from benchmarks.models.layers import check_choice

STEMS = ("auto", "native", "small")
SMALL_IMAGE = 64
LEAST_GRID = 8
"""Patches per side that the small stem of Swin and ConvNeXt leaves; three stages then halve it to 1."""


def build(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    architecture: str = "torchvision/resnet18",
    stem: str = "auto",
    options: dict[str, Any] | None = None,
) -> nn.Module:
    """The network ``architecture`` = ``torchvision/<name>`` or ``timm/<name>``, untrained.

    Args:
        architecture: library and name.
        num_classes: number of logits.
        in_channels: channels of the images.
        image_size: side of the square images in pixels.
        stem: ``auto``, ``native`` or ``small``, see above.
        options: arguments of the library's own for this network, such as ``drop_path_rate`` or, in timm, widths.

    Raises:
        UserError: for an unknown library, name or stem, a missing library, images or options that the network
            cannot take, and ``stem="small"`` where the network has none.
    """
    check_choice("stem", stem, STEMS)
    library, _, network = architecture.partition("/")
    check_choice("model library", library, tuple(LIBRARIES))
    create = LIBRARIES[library](network)

    def build_for(size: int) -> nn.Module:
        model = create(num_classes, in_channels, size, options or {})
        if stem == "small" or (stem == "auto" and size <= SMALL_IMAGE):
            _shrink_stem(model, architecture, size, required=stem == "small")
        return model

    try:
        model = build_for(image_size)
        logits = _probe(model, in_channels, image_size)
    except UserError:
        raise
    except Exception as error:  # each library has its own exceptions for an image that does not fit
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        least = _least(build_for, in_channels, image_size)
        what = f"the options {options} or " if options else ""
        raise UserError(
            f"{architecture} cannot take {what}{image_size}x{image_size} images{least} ({reason})"
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != (1, num_classes):
        raise UserError(
            f"{architecture} is no classifier of images: it does not give {num_classes} logits per image"
        )
    return model


def _torchvision(network: str) -> Callable[..., nn.Module]:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    _check_known("torchvision", network, known)
    special: dict[str, Callable[[int], dict[str, Any]]] = {
        "vit_": lambda size: {"image_size": size},
        "maxvit_": lambda size: {"input_size": (size, size)},
        "googlenet": lambda size: {"aux_logits": False, "init_weights": True},
        "inception_v3": lambda size: {"aux_logits": False, "init_weights": True},
    }

    def create(num_classes: int, in_channels: int, image_size: int, options: dict[str, Any]) -> nn.Module:
        needed = next((make(image_size) for start, make in special.items() if network.startswith(start)), {})
        options = {"weights": None, "num_classes": num_classes, **needed, **options}
        model = torchvision.models.get_model(network, **options)
        path, first = _first(model, nn.Conv2d)
        if first.in_channels != in_channels:
            _replace(model, path, _like(first, in_channels=in_channels))
        return model

    return create


def _timm(network: str) -> Callable[..., nn.Module]:
    try:
        import timm
    except ImportError:
        raise UserError(f"timm/{network} needs the package timm; install it with: pip install timm") from None
    _check_known("timm", network, timm.list_models())

    def create(num_classes: int, in_channels: int, image_size: int, options: dict[str, Any]) -> nn.Module:
        options = {"pretrained": False, "num_classes": num_classes, "in_chans": in_channels, **options}
        try:
            return timm.create_model(network, img_size=image_size, **options)
        except TypeError:  # convolutional networks have no parameter that depends on the size
            return timm.create_model(network, **options)

    return create


LIBRARIES: dict[str, Callable[[str], Callable[..., nn.Module]]] = {"torchvision": _torchvision, "timm": _timm}


def _check_known(library: str, network: str, known: list[str]) -> None:
    if network not in known:
        near = difflib.get_close_matches(network, known, n=3, cutoff=0.3)
        guess = f"did you mean {', '.join(near)}?" if near else f"it has {', '.join(sorted(known)[:5])}, ..."
        raise UserError(f"{library} has no model {network!r}; {guess}")


def _shrink_stem(model: nn.Module, name: str, image_size: int, required: bool) -> None:
    path, first = _first(model, nn.Conv2d)
    pool, plain = _stem_pool(model, path), type(first) is nn.Conv2d  # others may do more with their weights
    if plain and pool and first.kernel_size == (7, 7) and first.stride == (2, 2):
        _replace(model, path, _like(first, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)))
        _replace(model, pool, nn.Identity())
    elif plain and first.kernel_size == first.stride and not _tied_to_size(model):
        least = (
            1 if any(max(conv.kernel_size) > 1 for conv in _convolutions(model) if conv is not first) else 2
        )
        patch = max(least, min(first.kernel_size[0], image_size // LEAST_GRID))
        if patch != first.kernel_size[0]:
            _replace(model, path, _like(first, kernel_size=(patch, patch), stride=(patch, patch)))
    elif required:
        raise UserError(f"{name} has no small stem; use stem=native, or a ResNet, DenseNet or ConvNeXt")


def _stem_pool(model: nn.Module, conv: str) -> str | None:
    """Path of the max-pool that belongs to the stem whose convolution is at ``conv``.

    None where there is no plain one beside it, or above: some networks blur after their pool or pad before it, and
    leaving a part of that in place would make another network than anybody means.
    """
    pools = [path for path, module in model.named_modules() if type(module) is nn.MaxPool2d]
    parent = pools[0].rpartition(".")[0] if pools else None
    if parent is None or not f"{conv}.".startswith(f"{parent}." if parent else ""):
        return None
    padded = any(isinstance(module, nn.ConstantPad2d) for module in model.get_submodule(parent).children())
    return None if padded else pools[0]


def _convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def _tied_to_size(model: nn.Module) -> bool:
    """Whether the network was built for one image size, as those with learned positions are."""
    return any(hasattr(module, name) for module in model.modules() for name in ("image_size", "img_size"))


def _first(model: nn.Module, kind: type[nn.Module]) -> tuple[str, Any]:
    """Path and module of the first of its kind in the order of definition."""
    for path, module in model.named_modules():
        if isinstance(module, kind):
            return path, module
    raise UserError(
        f"{type(model).__name__} has no {kind.__name__} to adapt; use a convolutional or patch network"
    )


def _like(conv: nn.Conv2d, **changes: Any) -> nn.Conv2d:
    """A new convolution that is ``conv`` but for ``changes``."""
    options = {
        "in_channels": conv.in_channels,
        "out_channels": conv.out_channels,
        "kernel_size": conv.kernel_size,
        "stride": conv.stride,
        "padding": conv.padding,
        "bias": conv.bias is not None,
    }
    return nn.Conv2d(**{**options, **changes})


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


@torch.no_grad()
def _probe(model: nn.Module, in_channels: int, image_size: int) -> Any:
    """The logits of one black image; raises what the network raises for a size that it cannot take."""
    training = model.training
    try:
        return model.eval()(torch.zeros(1, in_channels, image_size, image_size))
    finally:
        model.train(training)


def _least(build_for: Callable[[int], nn.Module], in_channels: int, image_size: int) -> str:
    """The least of the usual sizes that the network takes, as a clause of the error."""
    for size in (16, 32, 48, 64, 96, 128, 224, 256):
        if size <= image_size:
            continue
        try:
            with torch.device("meta"):  # shapes alone: no weights are made
                _probe(build_for(size), in_channels, size)
        except Exception:  # too small as well
            continue
        return f"; of the usual sizes the least that it takes is {size}x{size}"
    return ""
