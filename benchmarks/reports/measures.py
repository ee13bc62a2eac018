"""From a card to a number, by a metric path.

    clean.KEY           on the clean test inputs                          KEY: error, top3_error, nll, ece
    corrupted.KEY       unweighted mean over all corruption types and severities
    severity.S.KEY      mean over the types of one severity; severity 0 is the clean test inputs
    type.NAME.KEY       mean over the severities of one corruption type
    official.error      the least clean test error of all epochs by the WAS authors' protocol, in training mode
                        and chosen on the test set; None without evaluation.official_was
    cost.NAME           a number of the card's cost, e.g. cost.seconds_per_epoch

Means are unweighted because all corrupted sets have the same size (DAMP paper, section 4 and its tables'
captions).
"""

from __future__ import annotations

from statistics import fmean

from benchmarks.errors import UserError, unknown_name
from benchmarks.results.card import COSTS, MEASURED, Card

SEVERITIES = (1, 2, 3, 4, 5)
# The worst that can be measured, which a diverged run counts as. The negative log-likelihood has no worst.
WORST = {"error": 100.0, "top3_error": 100.0, "ece": 1.0}


def check_metric(path: str, where: str) -> None:
    """Raise a :class:`UserError` unless ``path`` is a metric path; ``where`` names its place."""
    parts = path.split(".")
    lengths = {"clean": 2, "corrupted": 2, "severity": 3, "type": 3, "cost": 2, "official": 2}
    if parts[0] not in lengths:
        raise unknown_name(
            f"metric in {where}:", path, [*(f"{k}.error" for k in ("clean", "corrupted")), *lengths]
        )
    if len(parts) != lengths[parts[0]]:
        raise UserError(f"{where}: the metric {path!r} needs {lengths[parts[0]]} parts divided by dots")
    known = {"cost": COSTS, "official": ("error",)}.get(parts[0], MEASURED)
    if parts[-1] not in known:
        raise unknown_name(f"metric in {where}:", path, [".".join((*parts[:-1], name)) for name in known])
    if parts[0] == "severity" and parts[1] not in {str(s) for s in (0, *SEVERITIES)}:
        raise UserError(f"{where}: the metric {path!r} needs a severity from 0 to {SEVERITIES[-1]}")


def measure(card: Card, path: str, mode: str = "plain") -> float | None:
    """The number at ``path`` in ``card`` for the inference ``mode``; None where it was not measured.

    A run that diverged has no metrics, but it has a cost.
    """
    kind, *rest = path.split(".")
    if kind == "cost":
        number = card["cost"].get(rest[0])
        return None if number is None else float(number)
    if card["metrics"] is None:
        return None
    if mode not in card["metrics"]:
        raise unknown_name(f"inference mode of card {card['id']}", mode, card["metrics"])
    if kind == "official":
        errors = [entry.get(f"official_{mode}_error") for entry in card["curve"]]
        return min((error for error in errors if error is not None), default=None)
    metrics, key = card["metrics"][mode], rest[-1]
    corrupted = metrics["corrupted"]
    if kind == "clean" or (kind, rest[0]) == ("severity", "0"):
        return float(metrics["clean"][key])
    if not corrupted:
        return None
    if kind == "severity":
        return fmean(of_type[key][int(rest[0]) - 1] for of_type in corrupted.values())
    if kind == "type":
        if rest[0] not in corrupted:
            raise unknown_name(f"corruption type of card {card['id']}", rest[0], corrupted)
        return fmean(corrupted[rest[0]][key])
    return fmean(number for of_type in corrupted.values() for number in of_type[key])


def worst(path: str) -> float | None:
    """What a diverged run counts as; None where the metric has no worst value."""
    return None if path.startswith("cost.") else WORST.get(path.rpartition(".")[2])


def corruption_types(card: Card, mode: str = "plain") -> list[str]:
    """The corruption types that ``card`` was evaluated on, in alphabetical order."""
    return [] if card["metrics"] is None else sorted(card["metrics"][mode]["corrupted"])


def test_images(card: Card, mode: str = "plain") -> int | None:
    """How many clean test images ``card`` was evaluated on."""
    return None if card["metrics"] is None else int(card["metrics"][mode]["clean"]["n"])
