"""DOM made real: a network with shadow weights as the smaller dense network that it is (arXiv 2405.19590)."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weightaug.kernel_draws import LayerDraw, kernel_size, support
from weightaug.was import WAS, shadow_layers, shadow_weights, unwrapped

Conv = nn.Conv1d | nn.Conv2d


@torch.no_grad()
def materialise(
    model: nn.Module | WAS,
    draws: Mapping[str, LayerDraw] | None = None,
    *,
    coefficients: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """A copy of the network with the shadow weights of ``draws``, every kernel without its zero rows and columns.

    The kernel K T(W) of a shift by (dx, dy) taps is zero in |dy| rows at one edge and |dx| columns at one edge.
    The copy's convolution has a dense kernel of (k_h - |dy|) x (k_w - |dx|) taps instead,

        W'[o, c, y, x] = K W[o, c, y + max(0, -dy), x + max(0, -dx)],

    the same stride and dilation d, and instead of the padding p on all sides p - d max(0, dy) above,
    p - d max(0, -dy) below, p - d max(0, dx) on the left and p - d max(0, -dx) on the right (negative: so many
    rows or columns of the input are left out). It gives the outputs of the zero-filled convolution to rounding, for
    (1 - |dy| / k_h) (1 - |dx| / k_w) of its multiply-adds. Padding that the two sides have in common is the
    convolution's own; only the rest is a padded copy of the input. A 3x3 kernel becomes 2x3, 3x2 or 2x2.

    This holds for every draw: the kernel keeps the smallest window outside of which T(W) is zero whatever W is
    (for one draw per kernel, a window for all of them). A T2 crop, a flip or a user's function leaves no such
    edge, so the kernel keeps its size. So does that of a subclass of ``nn.Conv1d`` or ``nn.Conv2d``, which may do
    more with its weight than to convolve; its shadow weight is right all the same. A draw that leaves nothing
    keeps one tap, of zeros.

    Source: the paper's DOM. The authors' code runs the zero-filled convolutions and saves nothing.

    Args:
        model: a :class:`WAS` method, which knows its layers and K; or a network, to which draws alone apply.
        draws: T by layer, as ``method.draw(...)`` gives them: for a method one for every shadow layer, ``None``
            meaning its fixed ``method.draws``; for a network one for any convolution larger than 1x1, by module
            name, the others staying as they are.
        coefficients: K by layer, scalars; none means a method's own, and 1 for a network.

    Returns:
        A plain network that knows nothing of the method. Parameters, which can be trained further, buffers and
        modes (training or inference) are copies; parameter names are the same; the given model is untouched.
        BatchNorm's running statistics are those of the given model: see benchmarks/evaluation/batch_norm.py for
        statistics of the copy's own.

    Raises:
        ValueError: no draws at all, one for a layer that does not exist, none or no K for one that needs it;
            draws per kernel of another number than the kernels; a network without a convolution larger than
            1x1.
    """
    if isinstance(model, WAS):
        network, layers = model.model, model.layers
        draws = model.draws if draws is None else draws
        coefficients = model.coefficients_by_layer() if coefficients is None else coefficients
    else:
        network, layers = model, shadow_layers(model, ".*")
    draws = _checked(draws, layers, coefficients, complete=isinstance(model, WAS))
    layers = {name: layers[name] for name in draws}
    weights = {name: layer.weight for name, layer in layers.items()}
    shadows = shadow_weights(weights, draws, coefficients)
    memo: dict[int, object] = {}
    result = copy.deepcopy(unwrapped(network), memo)
    copies = {name: memo[id(layer)] for name, layer in layers.items()}
    for name, layer in copies.items():
        assert isinstance(layer, Conv)
        _give(result, layer, shadows[name], draws[name])
    return result


def shrinks(model: nn.Module, layer: nn.Module) -> bool:
    """Whether :func:`materialise` leaves zero taps out of this convolution of ``model``, or keeps its size.

    It does where every module that has this weight is ``nn.Conv1d`` or ``nn.Conv2d`` itself.
    """
    return all(type(owner) in (nn.Conv1d, nn.Conv2d) for owner in _owners(model, layer))


def _owners(model: nn.Module, layer: nn.Module) -> list[nn.Module]:
    """The modules that have the weight of ``layer``: itself, and those that share it."""
    return [m for m in model.modules() if any(p is layer.weight for p in m._parameters.values())]


def _checked(
    draws: Mapping[str, LayerDraw] | None,
    layers: Mapping[str, Conv],
    coefficients: Mapping[str, Tensor] | None,
    complete: bool,
) -> Mapping[str, LayerDraw]:
    if not draws:
        raise ValueError(
            "no draws to materialise: give draws by layer, e.g. method.draw('mine'), or set method.draws"
        )
    for name in draws:
        if name not in layers:
            near = difflib.get_close_matches(name, layers, n=1, cutoff=0.0)
            raise ValueError(f"draws has {name!r}, which is no shadow layer; one is called {near[0]!r}")
        if coefficients is not None and name not in coefficients:
            raise ValueError(f"coefficients has nothing for {name!r}; give one for each layer of draws")
    missing = [name for name in layers if name not in draws]
    if complete and missing:
        raise ValueError(
            f"draws has nothing for the shadow layer {missing[0]!r}; give one for each, Shift(0, 0) to keep it"
        )
    return draws


def _give(model: nn.Module, layer: Conv, shadow: Tensor, draw: LayerDraw) -> None:
    """Put ``shadow`` in the place of the layer's weight, without its zero edges where that can be."""
    rows, columns = support(draw, kernel_size(shadow))
    if not shrinks(model, layer) or (len(rows), len(columns)) == kernel_size(shadow):
        layer.weight.copy_(shadow)
        return
    windows = (rows, columns)[2 - len(layer.kernel_size) :]
    places = tuple(slice(window.start, window.stop) for window in windows)
    weight = nn.Parameter(
        shadow[:, :, *places].clone(memory_format=torch.contiguous_format), layer.weight.requires_grad
    )
    for owner in _owners(model, layer):
        assert isinstance(owner, Conv)
        owner.weight = weight
        _trim(owner, windows)


def _trim(conv: Conv, windows: tuple[range, ...]) -> None:
    """Make ``conv`` one with the taps in ``windows`` alone. In place, so that its hooks and its owners stay."""
    margins = [
        (before - step * window.start, after - step * (taps - window.stop))
        for (before, after), step, taps, window in zip(
            _padding(conv), conv.dilation, conv.kernel_size, windows, strict=True
        )
    ]
    # What both sides have in common is the convolution's own padding; the rest pads the input. Padding by the larger
    # side and slicing the output copies no input, but computes outputs to throw away: measured on a CPU it is as fast
    # on wide maps and slower on 4x4 ones, and with a stride the outputs do not line up.
    zeros = conv.padding_mode == "zeros"
    own = tuple(max(0, min(pair)) if zeros else 0 for pair in margins)
    rest = tuple(
        side - inner for pair, inner in reversed(list(zip(margins, own, strict=True))) for side in pair
    )
    kind = TrimmedConv1d if isinstance(conv, nn.Conv1d) else TrimmedConv2d
    conv.kernel_size = tuple(map(len, windows))
    conv.padding = own
    if any(rest):
        conv.__class__ = kind
        assert isinstance(conv, Trimmed)
        conv.margins, conv.margin_mode = rest, "constant" if zeros else conv.padding_mode
    conv.padding_mode = "zeros"


def _padding(conv: Conv) -> list[tuple[int, int]]:
    """What the convolution pads before and after, by axis."""
    if conv.padding == "same":
        totals = [step * (taps - 1) for step, taps in zip(conv.dilation, conv.kernel_size, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    if conv.padding == "valid":
        return [(0, 0)] * len(conv.kernel_size)
    return [(int(p), int(p)) for p in conv.padding]


class Trimmed(nn.Module):
    """Pads the input by ``margins`` [left, right, (top, bottom)] before the convolution's own padding."""

    margins: tuple[int, ...]
    margin_mode: str

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(_pad(input, self.margins, self.margin_mode))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, margins={self.margins}"


class TrimmedConv1d(Trimmed, nn.Conv1d):
    """A convolution whose padding differs from side to side."""


class TrimmedConv2d(Trimmed, nn.Conv2d):
    """A convolution whose padding differs from side to side."""


def _pad(x: Tensor, margins: tuple[int, ...], mode: str) -> Tensor:
    """Pad where a margin is positive, cut where it is negative."""
    if mode == "constant":
        return F.pad(x, margins)
    if any(margin > 0 for margin in margins):
        x = F.pad(x, [max(0, margin) for margin in margins], mode)
    return F.pad(x, [min(0, margin) for margin in margins])
