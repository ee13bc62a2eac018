"""One of two processes of a distributed step. Imports little: processes start soon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from small_networks import batch, gradients, mixed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from baselines import ASAM, SAM, SGD, CorruptedSGD
from weightaug import DAAP, DAMP, WAS, Method
from weightaug.wrappers import distributed

METHODS: dict[str, Callable[[nn.Module], Method]] = {
    "sgd": SGD,
    "damp": lambda model: DAMP(model, sub_batches=4, seed=3),
    "damp-loop": lambda model: unstacked(DAMP(model, sub_batches=4, seed=3)),
    "daap": lambda model: DAAP(model, sub_batches=2, seed=3),
    "sam": lambda model: SAM(model, sub_batches=4),
    "sam-one-each": lambda model: SAM(model, sub_batches=2),
    "asam": lambda model: ASAM(model, rho=0.5, sub_batches=4),
    "was": lambda model: WAS(model, layers="stem|grouped", seed=3),
    "was-in-sam": lambda model: WAS(
        model, layers="stem|grouped", seed=3, within=SAM(model, rho=0.3, sub_batches=4)
    ),
    "was-in-damp": lambda model: WAS(
        model, layers="stem|grouped", seed=3, within=DAMP(model, sub_batches=4, seed=3)
    ),
}


def unstacked(method: DAMP) -> DAMP:
    """One pass per sub-batch, as for a model that cannot be stacked."""
    method.copies.stacked = False
    return method


def check(rank: int, rendezvous: str) -> None:
    """This process's half of the batch must lead to the gradients of the whole one, twice accumulated."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    for name in METHODS:
        compare(name, rank)
    compiled: Any = torch.compile(DistributedDataParallel(mixed()))  # compiles nothing before it is called
    assert list(DAMP(compiled, sub_batches=4).copies.numbers) == [2 * rank, 2 * rank + 1]
    assert isinstance(distributed(compiled), DistributedDataParallel)
    method = CorruptedSGD(DistributedDataParallel(mixed()), corruption=lambda x, generator: -x)
    corrupted = method.corrupt(torch.ones(64))
    torch.distributed.all_reduce(corrupted)
    assert (corrupted == 0).any()  # examples that one process alone corrupts
    try:
        DAMP(DistributedDataParallel(mixed()), sub_batches=3)
    except ValueError as error:
        assert "sub_batches=3 cannot be shared among 2 processes: use a multiple of 2" in str(error)
    else:
        raise AssertionError("3 sub-batches for 2 processes must be refused")
    torch.distributed.destroy_process_group()


def compare(name: str, rank: int) -> None:
    whole, half = mixed(batch_norm=False), DistributedDataParallel(mixed(batch_norm=False))
    single, double = METHODS[name](whole), METHODS[name](half)
    for step in range(2):
        x, y = batch(8, step)
        loss = single.backward(F.cross_entropy, x, y)
        rows = slice(4 * rank, 4 * rank + 4)
        own = double.backward(F.cross_entropy, x[rows], y[rows])
        torch.distributed.all_reduce(own)
        torch.testing.assert_close(own / 2, loss)
        try:
            double.backward(F.cross_entropy, x[rows, :2], y[rows])
        except (RuntimeError, IndexError):  # what was accumulated so far stays
            continue
        raise AssertionError("two channels for three must fail")
    message = f"{name}: {{}}".format
    torch.testing.assert_close(gradients(half.module), gradients(whole), msg=message)
    learned = ([k.grad for k in method.parameters()] for method in (double, single))
    torch.testing.assert_close(*learned, msg=message)
