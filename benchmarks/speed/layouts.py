"""Which layout of M convolutions is fastest: all that the library has, and two that were tried beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.speed.measure import Device, Step, trainer
from weightaug.stacked_convolution import LAYOUTS, can_multiply, layout
from weightaug.stacks import SubBatches, mark_stacks

COPIES = 8
BATCH = 128
PAIRS = 5


def forms(device: Device) -> list[tuple[tuple[int, ...], nn.Conv2d]]:
    """Each different convolution of the ResNet-18 with the shape of its input [C, H, W]."""
    model = trainer("cpu", device.sizes, "eager", "float32").model
    found: dict[str, tuple[tuple[int, ...], nn.Conv2d]] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Conv2d)
        shape = tuple(inputs[0].shape[1:])
        found.setdefault(f"{layer} {shape}", (shape, layer))

    handles = [
        layer.register_forward_pre_hook(note) for layer in model.modules() if isinstance(layer, nn.Conv2d)
    ]
    with torch.no_grad():
        model(torch.zeros(2, 3, 32, 32))
    for handle in handles:
        handle.remove()
    return list(found.values())


def layouts(device: Device, shape: tuple[int, ...], layer: nn.Conv2d) -> dict[str, Any]:
    """Each layout's time over that of one convolution of the batch, forwards and backwards, float32.

    ``chosen`` is the library's rule for this device.
    """
    x = torch.randn(BATCH, *shape, device=device.name, requires_grad=True)
    stack = torch.randn(COPIES, *layer.weight.shape, device=device.name, requires_grad=True)
    mark_stacks([stack])
    mode = SubBatches([BATCH // COPIES] * COPIES, "synchronised", "unbiased")
    options = (None, layer.stride, layer.padding, layer.dilation, layer.groups)

    def work(run: Callable[..., Tensor]) -> Step:
        def forwards_and_backwards() -> None:
            y = run(mode, F.conv2d, x, stack, *options)
            torch.autograd.grad(y, (x, stack), torch.ones_like(y))

        return forwards_and_backwards

    runs = {**LAYOUTS, **TRIED}
    if not can_multiply(mode, stack, layer.padding, layer.groups):
        del runs["matmul"]
    channels = f"{layer.in_channels} to {layer.out_channels}"
    kernel = f"{'x'.join(map(str, layer.kernel_size))} with stride {layer.stride[0]}"
    return {
        "layer": f"{channels}, {kernel}, on {shape[1]} x {shape[2]}",
        "over_plain": {name: device.ratio(work(run), work(_plain), PAIRS)[0] for name, run in runs.items()},
        "chosen": layout(mode, x, stack, layer.stride, layer.padding, layer.groups),
    }


def _plain(mode: SubBatches, func: Any, input: Tensor, weight: Tensor, *options: Any) -> Tensor:
    return func(input, weight.unbind()[0], *options)


def _channels_last(mode: SubBatches, func: Any, input: Tensor, weight: Tensor, *options: Any) -> Tensor:
    """One grouped convolution in the memory format in which cuDNN's tensor cores work."""

    def convolve(x: Tensor, *rest: Any) -> Tensor:
        return func(x.contiguous(memory_format=torch.channels_last), *rest)

    return LAYOUTS["grouped"](mode, convolve, input, weight, *options)


def _patches(
    mode: SubBatches, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None,
    stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], groups: int,
) -> Tensor:  # fmt: skip
    """A batched matrix product over unfolded patches, without bias and groups."""
    high, wide = (
        (size + 2 * around - apart * (taps - 1) - 1) // step + 1
        for size, around, apart, taps, step in zip(
            input.shape[2:], padding, dilation, weight.shape[3:], stride, strict=True
        )
    )
    patches = F.unfold(input, weight.shape[3:], dilation, padding, stride).unflatten(0, (mode.copies, -1))
    return torch.matmul(weight.flatten(2).unsqueeze(1), patches).flatten(0, 1).unflatten(2, (high, wide))


TRIED = {"grouped, channels_last": _channels_last, "patches": _patches}
