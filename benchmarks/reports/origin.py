"""Where the cards come from, and in what they depart from the authors' protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.reports.aggregates import STANDARD
from benchmarks.reports.evidence import Evidence
from benchmarks.reports.sections import Grid
from benchmarks.reports.text import flat, literal, prose
from benchmarks.results.card import Card


def provenance(evidence: Evidence) -> Grid:
    """What the cards say of where they come from; one row for each distinct value."""
    sources = [card["provenance"] for card in evidence.cards]
    rows = []
    for key in ("commit", "hardware", "device", "threads", "versions", "command"):
        texts = Counter(_origin(source, key) for source in sources)
        for text, count in texts.items():
            rows.append([key, f"{text}{f' ({count} of {len(sources)} cards)' if len(texts) > 1 else ''}"])
    resumed = sum(card["cost"].get("resumed") or 0 for card in evidence.cards)
    if resumed:
        rows.append(["continued", f"{resumed} times from a checkpoint"])
    started, finished = (sorted(s[key] for s in sources if s.get(key)) for key in ("started", "finished"))
    if started and finished:
        rows.append(["trained", f"from {started[0]} to {finished[-1]}"])
    return Grid(["", ""], rows)


def _origin(source: dict[str, object], key: str) -> str:
    text = literal(flat(source.get(key, "not recorded")))
    return f"{text}, with uncommitted changes" if key == "commit" and source.get("dirty") else text


def deviations(evidence: Evidence) -> list[str]:
    """The table's own notes, then what the cards themselves show."""
    cards = evidence.cards
    checks = (_runs, _images, _types, _precision, _batch_norm, _interrupted, _code, _mixtures)
    return [*map(prose, evidence.table.notes), *(note for check in checks for note in check(evidence, cards))]


def _share(cards: list[Card], holds: Callable[[Card], Any]) -> str:
    """``in all runs`` or how many of them; empty where there is none."""
    count = sum(bool(holds(card)) for card in cards)
    return "" if not count else "in all runs" if count == len(cards) else f"in {count} of {len(cards)} runs"


def _setting(card: Card, group: str, key: str) -> Any:
    """A setting of the cell; None where the card is from before it existed."""
    of = card["cell"].get(group)
    return of.get(key) if isinstance(of, Mapping) else None


def _runs(evidence: Evidence, _: list[Card]) -> list[str]:
    numbers = [n for lines in evidence.lines.values() for line in lines for n in line.numbers]
    papers = max((n.published.runs or 0 for n in numbers if n.published), default=0)
    ours = len(evidence.seeds)
    return [f"{ours} seed{'s' * (ours > 1)} here, {papers} runs in the paper."] if ours < papers else []


def _images(_: Evidence, cards: list[Card]) -> list[str]:
    """Cards from before the origin was recorded hold generated images."""

    def generated(card: Card) -> bool:
        types = [name for of in (card["metrics"] or {}).values() for name in of["corrupted"]]
        origin = card.get("corrupted_images", {})
        return any(origin.get(name, "generated") == "generated" for name in types)

    share = _share(cards, generated)
    return (
        [f"Corrupted test images were generated here {share}; the published sets are others."]
        if share
        else []
    )


def _types(_: Evidence, cards: list[Card]) -> list[str]:
    tested = [
        set(of["corrupted"]) for card in cards for of in (card["metrics"] or {}).values() if of["corrupted"]
    ]
    missing = [name for name in STANDARD if any(name not in types for types in tested)]
    if not missing:
        return []
    names = ", ".join(name.replace("_", " ") for name in missing)
    return [f"Of the 15 standard corruption types {len(missing)} were left out: {names}."]


def _precision(_: Evidence, cards: list[Card]) -> list[str]:
    found = {_setting(card, "recipe", "precision") or "float32" for card in cards} - {"float32"}
    return [
        f"Precision {literal(name)} {_share(cards, _has('recipe', 'precision', name))}."
        for name in sorted(found)
    ]


def _has(group: str, key: str, value: str) -> Callable[[Card], bool]:
    """Whether a card's cell has the setting."""
    return lambda card: _setting(card, group, key) == value


def _batch_norm(_: Evidence, cards: list[Card]) -> list[str]:
    told = {
        "reestimated": "BatchNorm's statistics were estimated anew on training images before the test",
        "batch": "BatchNorm took the statistics of each test batch",
    }
    shares = {mode: _share(cards, _has("evaluation", "batch_norm", mode)) for mode in told}
    return [f"{told[mode]} {share}." for mode, share in shares.items() if share]


def _interrupted(_: Evidence, cards: list[Card]) -> list[str]:
    share = _share(cards, lambda card: card["cost"].get("resumed"))
    return [f"Training was interrupted and continued from a checkpoint {share}."] if share else []


def _code(_: Evidence, cards: list[Card]) -> list[str]:
    share = _share(cards, lambda card: card["provenance"].get("dirty"))
    return (
        [f"The code had uncommitted changes {share}, so the commit does not say what ran."] if share else []
    )


def _mixtures(_: Evidence, cards: list[Card]) -> list[str]:
    names = {
        "commit": "commits",
        "versions": "sets of package versions",
        "hardware": "machines",
        "device": "kinds of device",
        "threads": "numbers of threads",
    }
    counts = {key: len({flat(card["provenance"].get(key)) for card in cards}) for key in names}
    mixed = [f"{count} {names[key]}" for key, count in counts.items() if count > 1]
    return [f"Runs of {', '.join(mixed)} are mixed; see the provenance."] if mixed else []
