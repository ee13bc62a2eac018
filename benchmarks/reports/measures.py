"""From a card to a number, by a metric path.

    clean.KEY           on the clean test inputs                          KEY: error, top3_error, nll, ece
    corrupted.KEY       unweighted mean over all corruption types and severities of the cell's config; None where a
                        type of it was not measured, such as frost without its photographs: a mean over 18 types
                        is not compared with one over 19. Likewise severity.S.KEY
    corrupted15.KEY     over the 15 standard types, corrupted19.KEY over these and the 4 extra ones
    c_bar.KEY           over the 10 types of ImageNet-C-bar
    severity.S.KEY      mean over the types of one severity; severity 0 is the clean test inputs. S may be a range
                        such as 1-3, whose levels have equal weight
    type.NAME.KEY       mean over the severities of one corruption type; in claims, NAME * stands for each that there is
    attack.NAME.KEY     under an attack: fgsm, pgd, autoattack
    shifted.NAME.KEY    on a set of other images, such as imagenet_a or imagenet_d.texture; None for nll and ece where
                        they are not defined, see :mod:`benchmarks.results.card`
    official.error      the least clean test error of all epochs by the WAS authors' protocol, in training mode
                        and chosen on the test set; None without evaluation.official_was
    cost.NAME           a number of the card's cost, e.g. cost.seconds_per_epoch

None where it was not measured. The formulas are in :mod:`benchmarks.reports.aggregates`.
"""

from __future__ import annotations

from statistics import fmean

from benchmarks.data.files.declared import file_set, shifted_names
from benchmarks.errors import UserError, unknown_name
from benchmarks.reports.aggregates import GROUPS, at_severity, mean
from benchmarks.results.card import ATTACKS, COSTS, COUNTED, MEASURED, TIMED, Card

SEVERITIES = (1, 2, 3, 4, 5)
WHOLE_RUN = ("training_seconds", "evaluation_seconds", "energy_joules")
"""Costs that a run which diverged half-way has not paid in full: it has none of them."""
# The worst that can be measured, which a diverged run counts as. The negative log-likelihood has no worst.
WORST = {"error": 100.0, "top3_error": 100.0, "ece": 1.0}


def check_metric(path: str, where: str) -> None:
    """Raise a :class:`UserError` unless ``path`` is a metric path; ``where`` names its place."""
    parts = _parts(path)
    lengths = {"clean": 2, **dict.fromkeys(GROUPS, 2), "severity": 3, "type": 3, "attack": 3, "shifted": 3}
    lengths |= {"cost": 2, "official": 2}
    if parts[0] not in lengths:
        raise unknown_name(
            f"metric in {where}:", path, [*(f"{k}.error" for k in ("clean", "corrupted")), *lengths]
        )
    if len(parts) != lengths[parts[0]]:
        raise UserError(f"{where}: the metric {path!r} needs {lengths[parts[0]]} parts divided by dots")
    known = {"cost": (*COSTS, *COUNTED, *TIMED), "official": ("error",)}.get(parts[0], MEASURED)
    if parts[-1] not in known:
        raise unknown_name(f"metric in {where}:", path, [".".join((*parts[:-1], name)) for name in known])
    if parts[0] == "severity" and not _severities(parts[1]):
        raise UserError(
            f"{where}: the metric {path!r} needs a severity from 0 to {SEVERITIES[-1]}, or a range such as 1-3"
        )
    if parts[0] == "type" and parts[1] != "*":
        from benchmarks.data.corruptions.table import CORRUPTIONS

        if parts[1] not in CORRUPTIONS:
            raise unknown_name(f"corruption type in {where}:", parts[1], CORRUPTIONS)
    if parts[0] == "attack" and parts[1] not in ATTACKS:
        raise unknown_name(f"attack in {where}:", parts[1], ATTACKS)
    if parts[0] == "shifted":
        sets = [name for group in shifted_names() for name in file_set(group).sets]
        if parts[1] not in sets:
            raise unknown_name(f"set of shifted images in {where}:", parts[1], sets)


def _severities(text: str) -> range:
    """``3`` and ``1-3`` as the severities that they mean; empty where they mean none."""
    low, dash, high = text.partition("-")
    high = high if dash else low
    known = {str(s) for s in (0, *SEVERITIES)}
    return range(int(low), int(high) + 1) if {low, high} <= known else range(0)


def _parts(path: str) -> list[str]:
    """What the dots of a path divide; the name of a set of shifted images may have one itself."""
    kind, *rest = path.split(".")
    return [kind, ".".join(rest[:-1]), rest[-1]] if kind == "shifted" and len(rest) > 2 else [kind, *rest]


def measure(card: Card, path: str, mode: str = "plain") -> float | None:
    """The number at ``path`` in ``card`` for the inference ``mode``; None where it was not measured.

    A run that diverged has no metrics, but it has a cost.
    """
    kind, *rest = _parts(path)
    if kind == "cost":
        if card["status"] == "diverged" and rest[0] in WHOLE_RUN:
            return None
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
    if kind == "clean":
        return float(metrics["clean"][key])
    if kind in ("attack", "shifted"):
        measured = metrics.get({"attack": "attacks"}.get(kind, kind), {}).get(rest[0], {})
        return float(measured[key]) if key in measured else None
    if kind == "severity":
        chosen = _severities(rest[0])
        if chosen[-1] and unmeasured_types(card, mode):
            return None
        if chosen[-1] and not metrics["corrupted"]:
            return None
        types = metrics["corrupted"]
        return fmean(at_severity(metrics, s, key, types) if s else metrics["clean"][key] for s in chosen)
    if not metrics["corrupted"]:
        return None
    if kind == "corrupted" and unmeasured_types(card, mode):
        return None
    if kind == "type":
        of = metrics["corrupted"].get(rest[0])
        return None if of is None else fmean(of[key])
    return mean(metrics, key, GROUPS[kind])


def exact(path: str) -> bool:
    """Whether a metric is counted, not measured, so that it has no error."""
    kind, _, name = path.partition(".")
    return kind == "cost" and name in ("parameters", "macs", "flops", *COUNTED)


def worst(path: str) -> float | None:
    """What a diverged run counts as; None where the metric has no worst value."""
    return None if path.startswith("cost.") else WORST.get(path.rpartition(".")[2])


def corruption_types(card: Card, mode: str = "plain") -> list[str]:
    """The corruption types that ``card`` was evaluated on, in alphabetical order."""
    return [] if card["metrics"] is None else sorted(card["metrics"][mode]["corrupted"])


def unmeasured_types(card: Card, mode: str = "plain") -> list[str]:
    """The types that the cell's config has and the evaluation could not make, in alphabetical order."""
    asked = card["cell"]["dataset"].get("corruptions") or {}
    measured = corruption_types(card, mode)
    return sorted(set(asked) - set(measured)) if measured else []


def test_images(card: Card, mode: str = "plain", path: str = "clean.error") -> int | None:
    """How many test images stand behind the number at ``path``: those of its set of shifted images, else the clean."""
    if card["metrics"] is None:
        return None
    metrics = card["metrics"][mode]
    kind, *rest = _parts(path)
    found = metrics.get("shifted", {}).get(rest[0]) if kind == "shifted" else metrics["clean"]
    return None if found is None else int(found["n"])
