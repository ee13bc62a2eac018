"""The WAS authors' test, after every epoch and with the network still in training mode (protocol ``official``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmarks.cell import Cell
from benchmarks.data.dataset import DataSet
from benchmarks.evaluation.batch_norm import batch_statistics
from weightaug.method import Method
from weightaug.random import RandomSource, derive_seed


def official_errors(cell: Cell, method: Method, data: DataSet, epoch: int) -> dict[str, float]:
    """The clean test error in % as the WAS authors take it after ``epoch`` epochs: ``official_<mode>_error`` by mode.

    Every batch is normalised by its own statistics and dropout is on; the batches are those of a shuffled test set,
    as large as in training; shadow weights are drawn anew for each. Order, dropout and draws are functions of (seed,
    epoch), and model and method are as before afterwards. The authors print the best of all epochs, which
    ``official.error`` in :mod:`benchmarks.reports.measures` takes: a choice made on the test set.

    Source: main.py (test, test_two) of the authors' code, where nothing ever calls ``net.eval()``.
    """
    seed = derive_seed(cell.seed, "official", epoch)
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(seed))
    errors = {}
    with _own_randomness(method, seed), batch_statistics(method.model, dropout=True):
        for mode in method.modes:
            torch.manual_seed(derive_seed(seed, mode))  # dropout's; every training step sets its own
            wrong = torch.zeros((), device=data.test.labels.device)
            for images, labels in data.test.read(order, cell.recipe.batch_size):
                predicted = method.predict(data.normalise(images), mode).argmax(dim=1)
                wrong += (predicted != labels).sum()
            errors[f"official_{mode}_error"] = 100 * float(wrong) / len(order)
    return errors


@contextmanager
def _own_randomness(method: Method, seed: int) -> Iterator[None]:
    """Within the context the method draws from another source; its state and the modules' modes come back."""
    state, random = method.state_dict(), method.random
    training = {module: module.training for module in method.model.modules()}
    method.random = RandomSource(seed)
    method.model.eval()
    try:
        yield
    finally:
        method.random = random
        method.load_state_dict(state)
        for module, mode in training.items():
            module.training = mode
