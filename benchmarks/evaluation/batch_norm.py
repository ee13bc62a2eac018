"""BatchNorm at test time: statistics re-estimated for the weights in use, or those of the test batch itself.

Running statistics gathered in training belong to the weights that training ran with. WAS trains with shadow
weights, so its plain weights need statistics of their own (protocol ``corrected``); the WAS authors never
switch to inference mode and so normalise every test batch by itself, with dropout on (protocol ``official``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


@contextmanager
def reestimate(
    model: nn.Module, forward: Callable[[Tensor], object], batches: Iterable[Tensor]
) -> Iterator[None]:
    """Within the context BatchNorm's running statistics are the plain average of those of ``batches``.

    The batches pass through ``forward`` without gradients, BatchNorm in training mode and everything else as
    it is; BatchNorm is in inference mode afterwards. On exit the statistics, the modes and the momentum are
    what they were, bit for bit. Nothing happens, and no batch is consumed, where the model keeps no running
    statistics.

    Args:
        model: the network whose statistics are meant.
        forward: runs it in the way that is to be measured, e.g. ``lambda x: method.predict(x, "plain")``.
        batches: training inputs [N, ...], at least one.

    Raises:
        ValueError: there is no batch.
    """
    norms = [module for module in _batch_norms(model) if module.running_mean is not None]
    if not norms:
        yield
        return
    before = [({name: b.clone() for name, b in n.named_buffers()}, n.momentum, n.training) for n in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch's word for the cumulative average
            norm.train()
        count = 0
        with torch.no_grad():
            for batch in batches:
                forward(batch)
                count += 1
        if not count:
            raise ValueError("BatchNorm cannot be re-estimated from no batches; give at least one")
        for norm in norms:
            norm.eval()
        yield
    finally:
        for norm, (buffers, momentum, training) in zip(norms, before, strict=True):
            norm.momentum, norm.training = momentum, training
            with torch.no_grad():
                for name, buffer in norm.named_buffers():
                    buffer.copy_(buffers[name])


@contextmanager
def batch_statistics(model: nn.Module, dropout: bool = False) -> Iterator[None]:
    """Within the context BatchNorm uses the statistics of each batch and leaves its running ones alone.

    Args:
        model: the network; on exit its modules are in the modes they were in.
        dropout: switch dropout (and drop-connect) on too, as the WAS authors do.
    """
    norms = _batch_norms(model)
    drops = [module for module in model.modules() if isinstance(module, _DropoutNd)] if dropout else []
    before = [(module, module.training) for module in [*norms, *drops]]
    tracking = [(norm, norm.track_running_stats) for norm in norms]
    try:
        for module, _ in before:
            module.training = True
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for module, training in before:
            module.training = training
        for norm, tracked in tracking:
            norm.track_running_stats = tracked


def _batch_norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]
