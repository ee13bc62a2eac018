"""Every layout of M convolutions gives what a convolution per copy gives, and so do its gradients."""

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings

from weightaug.stacked_convolution import LAYOUTS, LOOP_FROM, can_multiply, layout
from weightaug.stacks import SubBatches, mark_stacks

FUNCTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def modes(copies, rows=2):
    return SubBatches([rows] * copies, "synchronised", "unbiased")


@settings(max_examples=40, deadline=None)
@given(
    axes=st.integers(1, 3),
    copies=st.integers(1, 3),
    groups=st.integers(1, 2),
    taps=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.sampled_from([0, 1, "valid"]),
    dilation=st.integers(1, 2),
    biased=st.booleans(),
    data=st.data(),
)
def test_layouts_agree(axes, copies, groups, taps, stride, padding, dilation, biased, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    make = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()  # noqa: E731
    x = make(2 * copies, 2 * groups, *range(6, 6 + axes))
    stack = make(copies, 3 * groups, 2, *(taps,) * axes)
    bias = make(copies, 3 * groups) if biased else None
    leaves = [x, stack] + ([bias] if biased else [])
    mark_stacks(leaves[1:])
    function, mode = FUNCTIONS[axes], modes(copies)
    expected = torch.cat(
        [
            function(part, w, b, stride, padding, dilation, groups)
            for part, w, b in zip(
                x.split(2), stack.unbind(), [None] * copies if bias is None else bias.unbind(), strict=True
            )
        ]
    )
    direction = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad(expected, leaves, direction)
    for name, run in LAYOUTS.items():
        if name == "matmul" and not can_multiply(mode, stack, padding, groups):
            continue
        ours = run(mode, function, x, stack, bias, stride, padding, dilation, groups)
        torch.testing.assert_close(ours, expected)
        torch.testing.assert_close(torch.autograd.grad(ours, leaves, direction), gradients)


@pytest.mark.parametrize(
    ("weight", "options", "chosen"),
    [
        ((8, 8, 4, 1, 1), {}, "matmul"),
        ((8, 8, 4, 1, 1), {"stride": (2, 2), "padding": (0, 0)}, "matmul"),
        ((8, 8, 4, 1, 1), {"padding": 1}, "grouped"),
        ((8, 8, 2, 1, 1), {"groups": 2}, "grouped"),
        ((8, 8, 4, 3, 3), {"padding": 1}, "grouped"),
        ((8, LOOP_FROM // (2 * 6 * 6 * 4 * 9) + 1, 4, 3, 3), {"padding": 1}, "loop"),
        ((8, LOOP_FROM // (2 * 6 * 6 * 4 * 9) + 1, 4, 3, 3), {"padding": 1, "stride": 2}, "grouped"),
    ],
)
def test_the_layout_follows_from_the_shapes(weight, options, chosen):
    stack = torch.empty(weight)
    mark_stacks([stack])
    assert layout(modes(8), torch.empty(16, 4, 6, 6), stack, **options) == chosen
    other = torch.empty(weight, device="meta")
    mark_stacks([other])
    assert layout(modes(8), torch.empty(16, 4, 6, 6, device="meta"), other, **options) == "grouped"


def test_sub_batches_of_two_sizes_are_run_one_by_one():
    mode = SubBatches([2, 1], "synchronised", "unbiased")
    stack = torch.randn(2, 3, 4, 1, 1)
    mark_stacks([stack])
    assert layout(mode, torch.empty(3, 4, 6, 6), stack) == "loop"
