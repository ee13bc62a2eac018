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
    return _calibration_gap(confidence, (prediction == labels).to(confidence), bins)


def _calibration_gap(confidence: Tensor, correct: Tensor, bins: int) -> float:
    """``sum_b |sum of confidence - correct in b| / N``, both [N] in the same precision."""
    # i * (1 / bins) as in numpy.linspace, not i / bins: it decides where a confidence on an edge belongs.
    edges = torch.tensor([*(i * (1 / bins) for i in range(bins)), 1.0], dtype=torch.float64).to(confidence)
    # right=False: the bin of c is the last edge below c, so edges[b] < c <= edges[b + 1].
    bin_of = torch.bucketize(confidence, edges, right=False) - 1
    inside = bin_of >= 0
    gap = torch.zeros(bins, dtype=torch.float64, device=confidence.device)
    difference = (confidence - correct).double()
    gap.index_add_(0, bin_of[inside].clamp(max=bins - 1), difference[inside])
    return float(gap.abs().sum()) / len(confidence)


def measure(logits: Tensor, labels: Tensor, bins: int = 15) -> dict[str, float]:
    """n, error [%], top3_error [%], nll [nats] and ece [share, 0 to 1], computed in float64.

    ``top3_error`` is 0 where there are at most three classes. Logits that are not finite (a diverged model)
    count as wrong predictions and give NaN for nll and ece.

    Args:
        logits: [N, classes].
        labels: [N], class numbers.
    """
    return summarise(per_example(logits, labels), bins)


@torch.no_grad()
def per_example(logits: Tensor, labels: Tensor) -> Tensor:
    """All that :func:`summarise` needs of each example, float64 [5, N]: five numbers in the place of all logits.

    Wrong, not among the first three, negative log-likelihood, confidence (NaN where a logit is not finite), and
    whether the most probable class is right.
    """
    if logits.dim() != 2 or logits.shape[:1] != labels.shape or len(labels) == 0:
        raise UserError(
            f"metrics need logits [N, classes] and labels [N], got {[*logits.shape]} and {[*labels.shape]}"
        )
    logits = logits.double()
    finite = logits.isfinite().all(dim=1)
    first = (logits.argmax(dim=1) == labels) & finite
    top3 = (logits.topk(min(3, logits.shape[1]), dim=1).indices == labels[:, None]).any(dim=1) & finite
    confidence, prediction = logits.softmax(dim=1).max(dim=1)
    return torch.stack(
        [
            (~first).double(),
            (~(first | top3)).double(),
            F.cross_entropy(logits, labels, reduction="none"),
            confidence.masked_fill(~finite, float("nan")),
            (prediction == labels).double(),
        ]
    )


@torch.no_grad()
def per_accepted_example(logits: Tensor, accepted: Tensor, outputs: Tensor | None = None) -> Tensor:
    """As :func:`per_example`, where several labels may be right or some outputs do not compete.

    Wrong: the highest of the competing outputs is not accepted; not among the first three: none of the three highest
    is. Likelihood and confidence are defined only where each image has one label and all outputs compete; anywhere
    else they are left out: float64 [2, N] in the place of [5, N].

    Args:
        logits: [N, classes].
        accepted: the labels that are right, int64 [N, K], filled up with -1.
        outputs: the outputs that compete, int64 [M]; None: all.
    """
    if outputs is None and accepted.shape[1] == 1:
        return per_example(logits, accepted[:, 0])
    competing = logits if outputs is None else logits[:, outputs]
    finite = competing.isfinite().all(dim=1)
    best = torch.cat(
        [competing.argmax(1, keepdim=True), competing.topk(min(3, competing.shape[1])).indices], 1
    )
    labels = best if outputs is None else outputs[best]
    right = (labels[:, :, None] == accepted[:, None, :]).any(dim=2) & finite[:, None]
    return torch.stack([~right[:, 0], ~right.any(dim=1)]).double()


def summarise(examples: Tensor, bins: int = 15) -> dict[str, float]:
    """The measurements of a test set from those of its examples, see :func:`measure` and :func:`per_example`.

    Without nll and ece for the examples of :func:`per_accepted_example` that have none.
    """
    wrong, beyond, *likelihood = examples
    measured = {
        "n": examples.shape[1],
        "error": 100 * float(wrong.mean()),
        "top3_error": 100 * float(beyond.mean()),
    }
    if likelihood:
        nll, confidence, correct = likelihood
        finite = not bool(confidence.isnan().any())
        measured["nll"] = float(nll.mean())
        measured["ece"] = _calibration_gap(confidence, correct, bins) if finite else float("nan")
    return measured
