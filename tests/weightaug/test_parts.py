"""Parts of a mini-batch, where no second process is needed to see them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from weightaug import Part
from weightaug.synchronised import batch_norm


@pytest.mark.parametrize("shape", [(), ([],), ((),)])
def test_a_number_for_the_whole_batch_is_the_same_in_every_part(shape: tuple[object, ...]) -> None:
    drawn = []
    for number in range(2):
        torch.manual_seed(0)
        with Part(number, 2, 4 * number, 4, 8).layers():
            drawn.append(torch.rand(*shape) if shape else torch.rand([]))
    assert drawn[0].shape == () and drawn[0] == drawn[1]


@pytest.fixture
def group(tmp_path: Path) -> Iterator[dist.ProcessGroup]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield dist.group.WORLD  # type: ignore[misc]
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("dtype", "of_weights", "tolerance"),
    [
        (torch.float64, torch.float64, 1e-12),
        (torch.float32, torch.float32, 1e-5),
        (torch.bfloat16, torch.float32, 3e-2),
        (torch.bfloat16, torch.bfloat16, 3e-2),
    ],
)
def test_synchronised_statistics_in_every_precision(
    group: dist.ProcessGroup, dtype: torch.dtype, of_weights: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(6, 3, 5, 5), torch.rand(3), torch.rand(3)
    direction = torch.randn_like(x)
    found = []
    for kinds in ((torch.float64, torch.float64), (dtype, of_weights)):
        leaves = [
            t.to(kind).requires_grad_()
            for t, kind in zip((x, weight, bias), (kinds[0], *kinds[1:] * 2), strict=True)
        ]
        running = torch.zeros(3, dtype=kinds[1]), torch.ones(3, dtype=kinds[1])
        run = F.batch_norm if not found else lambda *args: batch_norm(group, *args)
        y = run(leaves[0], *running, *leaves[1:], True)
        found.append([y, *torch.autograd.grad(y, leaves, direction.to(y.dtype)), *running])
    for expected, ours in zip(*found, strict=True):
        assert (ours.double() - expected).norm() <= tolerance * expected.norm()
    assert found[1][0].dtype == dtype
