"""What is measured on a test set, from logits and labels: error rates, likelihood, calibration."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.errors import UserError


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error: ``sum_b n_b / N |mean confidence - accuracy|``, as a share (0 to 1).

    The bins (lo, hi] of the confidence have equal width; a confidence of exactly 0 is in none but counts in
    N. The first of equally likely classes is the prediction. Source: the DAMP authors' code; computed in the
    precision of ``probabilities``, bin edges included.

    Args:
        probabilities: [N, classes].
        labels: [N].
    """
    confidence, prediction = probabilities.max(dim=1)
    # i * (1 / bins) as in numpy.linspace, not i / bins: it decides where a confidence on an edge belongs.
    edges = torch.tensor([*(i * (1 / bins) for i in range(bins)), 1.0], dtype=torch.float64).to(probabilities)
    # right=False: the bin of c is the last edge below c, so edges[b] < c <= edges[b + 1].
    bin_of = torch.bucketize(confidence, edges, right=False) - 1
    inside = bin_of >= 0
    gap = torch.zeros(bins, dtype=torch.float64, device=probabilities.device)
    difference = (confidence - (prediction == labels).to(confidence)).double()
    gap.index_add_(0, bin_of[inside].clamp(max=bins - 1), difference[inside])
    return float(gap.abs().sum()) / len(labels)


@torch.no_grad()
def measure(logits: Tensor, labels: Tensor, bins: int = 15) -> dict[str, float]:
    """n, error [%], top3_error [%], nll [nats] and ece [share, 0 to 1], computed in float64.

    ``top3_error`` is 0 where there are at most three classes. Logits that are not finite (a diverged model)
    count as wrong predictions and give NaN for nll and ece.

    Args:
        logits: [N, classes].
        labels: [N], class numbers.
    """
    if logits.dim() != 2 or logits.shape[:1] != labels.shape or len(labels) == 0:
        raise UserError(
            f"metrics need logits [N, classes] and labels [N], got {[*logits.shape]} and {[*labels.shape]}"
        )
    logits = logits.double()
    finite = logits.isfinite().all(dim=1)
    first = (logits.argmax(dim=1) == labels) & finite
    top3 = (logits.topk(min(3, logits.shape[1]), dim=1).indices == labels[:, None]).any(dim=1) & finite
    return {
        "n": len(labels),
        "error": 100 * float((~first).double().mean()),
        "top3_error": 100 * float((~(first | top3)).double().mean()),
        "nll": float(F.cross_entropy(logits, labels)),
        "ece": calibration_error(logits.softmax(dim=1), labels, bins) if bool(finite.all()) else float("nan"),
    }
