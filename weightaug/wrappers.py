"""What torch.compile and DistributedDataParallel put around a model, in any order."""

from __future__ import annotations

import re

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

PREFIX = re.compile(r"^(?:_orig_mod\.|module\.)+")
"""What the wrappers put before the names of a model's modules and parameters."""


def unwrap(model: nn.Module) -> list[nn.Module]:
    """``model`` and the models inside its wrappers, the outermost first."""
    found = [model]
    while isinstance(found[-1], DistributedDataParallel | DataParallel) or "_orig_mod" in found[-1]._modules:
        found.append(found[-1].get_submodule("_orig_mod" if "_orig_mod" in found[-1]._modules else "module"))
    return found


def distributed(model: nn.Module) -> DistributedDataParallel | None:
    """The wrapper that makes processes share the model's gradients, if there is one."""
    return next((m for m in unwrap(model) if isinstance(m, DistributedDataParallel)), None)
