"""The card: the JSON result of one finished cell.

    schema      version of this layout (int)
    id          content hash of the cell, also the file's name
    status      "finished" or "diverged"
    cell        the full config: method, model, dataset, recipe, evaluation, protocol, scale, seed
    metrics     {mode: {"clean": M, "corrupted": {type: M5}, "attacks": {name: M and the attack's parameters},
                "shifted": {set: S}}}; null where the run diverged. mode is "plain", for WAS also "shadow"; without
                attacks or sets of shifted images the key is left out. Parameters: "epsilon" (largest change of a
                pixel on the scale 0 to 1), for PGD also "steps" and "step_size".
                M  = {"n": int, "error": %, "top3_error": %, "nll": nats, "ece": fraction}
                M5 = the same keys but "n", each a list over severities 1..5
                S  = {"n", "error", "top3_error"} as in M, of images that may have several accepted labels: an image
                is right if the highest of the competing outputs is accepted, and right among the first three if
                one of the three highest is. All 1,000 outputs compete, for imagenet_a and imagenet_r their 200
                classes'. "nll" and "ece" are there, both, only where every image of the set has exactly one
                accepted label and all outputs compete; elsewhere neither is defined. The parts of ImageNet-D are
                sets of their own (imagenet_d.background, ...); the images are the published ones
    corrupted_images  {type: "generated" | "published"}: where the corrupted test images came from (not in older
                cards: generated)
    diverged_at {"epoch", "step"} or null
    curve       one entry per epoch: {"epoch", "step", "lr", "loss"}, loss = mean training loss; with
                evaluation.official_was also "official_<mode>_error": %, the clean test error as the WAS
                authors take it (batch statistics and dropout on)
    cost        parameters, macs, flops (= 2 macs; one forward pass of one image), uncounted_operators
                {name: count}, seconds_per_epoch (training only), training_seconds, evaluation_seconds,
                peak_memory_bytes, resumed (how often the run was continued from a checkpoint). Seconds are wall-clock
                ones after waiting for the device. training_seconds are those of the training steps with making their
                batches, over all continuations; what they exclude is apart (these and all that follow up to
                energy_joules are not in older cards): compile_seconds; checkpoint_seconds (writing them);
                evaluation_seconds (the tests of every epoch that evaluation.official_was adds included);
                preparation_seconds (loading the data, making the corrupted images; little where another cell of
                the process has the same).
                images_per_second: training images seen / training_seconds. training_flops: of one training step, per
                image, forwards and backwards, 2 for a multiply-add, counted while a step of the method runs:
                3 flops for SGD but for what no gradient needs, twice that for SAM. flops_per_second =
                training_flops images_per_second. matmul_flops_per_second: the highest rate of a large square matrix
                product on the same device in the precision of the run, measured by the process that ran the cell,
                with its threads. utilisation = flops_per_second / (matmul_flops_per_second times the devices) (MFU).
                energy_joules: of the whole device during training_seconds, by its own counter (NVML); null where it
                has none. starvation: the share of training_seconds in which the device waited for images to come
                from disk, 0 to 1; 0 where they lie on the device. evaluation_batch_size: how many images a forward
                pass of the evaluation took, less than evaluation.batch_size where the memory asked for it. With WAS
                also what DOM saves, in % of the multiply-adds of one pass: dom_saving_expected (over the draws of its
                transform; left out where the outcomes are not finitely many), dom_saving_shift (over those of T1, the
                random shift), dom_saving_axis, dom_saving_diagonal (every layer draws a shift by one tap along one
                axis, along both), dom_saving_moved (mean over all shifts that move)
    weights     {"sha256", "bytes"} of the trained weights that lie beside the cards, see
                :mod:`benchmarks.results.weights`; null where none were kept (weights=drop, divergence). Cards
                from before weights were kept lack it
    provenance  commit, dirty, versions, hardware, device, command, started, finished (UTC, ISO 8601); engine: what was
                asked for, what ran (null where nothing was left to train), why faster ones that were tried do not
                run, seconds to prepare it; devices: how many trained the cell together; accumulate: in how many parts
                each ran its part of a batch. Cards from before there were several have neither. peak_memory_bytes
                is then that of the process which had most, energy_joules that of all devices

Errors are percentages as the papers print them. Raw measurements only: every aggregate is derived from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

SCHEMA = 1
STATUSES = ("finished", "diverged")
REQUIRED = ("schema", "id", "status", "cell", "metrics", "diverged_at", "curve", "cost", "provenance")

MEASURED = ("error", "top3_error", "nll", "ece")
RANGES = {
    "n": (1, math.inf),
    "error": (0, 100),
    "top3_error": (0, 100),
    "nll": (0, math.inf),
    "ece": (0, 1),
}
ATTACKS = ("fgsm", "pgd", "autoattack")
COSTS = (
    "parameters",
    "macs",
    "flops",
    "seconds_per_epoch",
    "training_seconds",
    "evaluation_seconds",
    "peak_memory_bytes",
    "resumed",
)
COUNTED = (
    "dom_saving_expected",
    "dom_saving_shift",
    "dom_saving_axis",
    "dom_saving_diagonal",
    "dom_saving_moved",
    "training_flops",
)
TIMED = (
    "compile_seconds",
    "checkpoint_seconds",
    "preparation_seconds",
    "images_per_second",
    "flops_per_second",
    "matmul_flops_per_second",
    "utilisation",
    "energy_joules",
    "starvation",
    "evaluation_batch_size",
)
"""These and those counted are costs that only some cards have."""

Card = dict[str, Any]


class DamagedCardError(Exception):
    """A file that is not a valid card; says why."""


def check_card(card: Any) -> Card:
    """Return ``card`` if it has the layout above, else raise :class:`DamagedCardError`."""
    if not isinstance(card, dict):
        raise DamagedCardError("not a JSON object")
    missing = [key for key in REQUIRED if key not in card]
    if missing:
        raise DamagedCardError(f"lacks {', '.join(missing)}")
    if card["schema"] != SCHEMA:
        raise DamagedCardError(f"has layout version {card['schema']}, this program reads {SCHEMA}")
    if card["status"] not in STATUSES:
        raise DamagedCardError(f"has the unknown status {card['status']!r}")
    if (card["status"] == "finished") != (card["metrics"] is not None):
        raise DamagedCardError("has a status that does not fit its metrics")
    try:
        _check_numbers(card)
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedCardError(f"lacks or garbles {error}") from error
    return card


def _check_numbers(card: Card) -> None:
    """Every measurement has its place and is a number."""
    for metrics in (card["metrics"] or {"none": None}).values():
        if metrics is None:
            break
        for values in metrics["corrupted"].values():
            for key in MEASURED:
                if len(values[key]) != 5:
                    raise DamagedCardError(f"has {len(values[key])} severities instead of 5")
            _measured("corrupted", values, MEASURED)
        _measured("clean", metrics["clean"], ("n", *MEASURED))
        for values in metrics.get("attacks", {}).values():
            _measured("attacked", values, ("n", *MEASURED))
            _numbers("epsilon", values["epsilon"])
        for name, values in metrics.get("shifted", {}).items():
            likelihood = ("nll", "ece") if values.keys() & {"nll", "ece"} else ()
            _measured(name, values, ("n", "error", "top3_error", *likelihood))
    for entry in card["curve"]:
        _numbers("curve", entry["epoch"], entry["step"], entry["lr"], entry["loss"])
    for key in COSTS:
        _numbers(key, card["cost"][key])
    for key in (*COUNTED, *TIMED):
        if card["cost"].get(key) is not None:
            _numbers(key, card["cost"][key])
    if not 0 <= (share := card["cost"].get("starvation") or 0) <= 1:
        raise DamagedCardError(f"has a starvation of {share:g}, outside 0 to 1")
    for group in ("cell", "provenance"):
        card[group].keys()
    if card.get("weights") is not None:
        _numbers("the weights' bytes", card["weights"]["bytes"])
        card["weights"]["sha256"].lower()


def _numbers(name: str, *values: Any) -> None:
    for value in values:
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise DamagedCardError(f"has {name} that is not a number")


def _measured(name: str, values: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Numbers, or lists of them, in the range that each of them has."""
    for key in keys:
        low, high = RANGES[key]
        numbers = values[key] if isinstance(values[key], list) else [values[key]]
        _numbers(f"{name} {key}", *numbers)
        for number in numbers:
            if not low <= number <= high:
                raise DamagedCardError(f"has a {name} {key} of {number:g}, outside {low:g} to {high:g}")
