"""The two sides of a comparison: cards from a store, a folder, or a git revision."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from benchmarks.errors import UserError, one_line
from benchmarks.results.card import Card, DamagedCardError
from benchmarks.results.reading import card_from

GIT = "git:"
REPORTS = "reports"


@dataclass(frozen=True)
class Side:
    """One side: its cards by id, and which files were left out and why."""

    name: str
    cards: dict[str, Card] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def read_side(name: str) -> Side:
    """The cards that ``name`` stands for.

    Args:
        name: a card store, a folder of cards, one with such folders below it (``reports``), or
            ``git:REVISION[:PATH]``: the committed cards below a path (default: reports) of the repository here.

    Raises:
        UserError: there is no such place, or no card in it.
    """
    files = _git_files(name) if name.startswith(GIT) else _folder_files(Path(name))
    side, origins = Side(name), dict[str, str]()
    for file, content in files:
        try:
            card = card_from(content)
            if card["id"] != PurePosixPath(file).stem:
                raise DamagedCardError(f"is the card of cell {card['id']} under another name")
        except DamagedCardError as error:
            side.left_out.append(f"{file}: {one_line(error)}")
            continue
        known = side.cards.setdefault(card["id"], card)
        if known["metrics"] != card["metrics"]:
            side.left_out.append(
                f"{file}: says otherwise than {origins[card['id']]}, the card of the same cell"
            )
        origins.setdefault(card["id"], file)
    if not side.cards:
        damaged = f", and {len(side.left_out)} damaged ones" if side.left_out else ""
        raise UserError(
            f"no card in {name}{damaged}; train some with `weightaug reproduce TABLE store=FOLDER`, or name a store, "
            "a folder of cards or git:REVISION[:PATH]"
        )
    return side


def _folder_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a store, a folder of cards or git:REVISION[:PATH]")
    store = folder / "cards"
    found = sorted((store if store.is_dir() else folder).glob("*.json")) or sorted(
        folder.rglob("cards/*.json")
    )
    for path in found:
        yield str(path), path.read_bytes()


def _git_files(name: str) -> Iterator[tuple[str, bytes]]:
    revision, _, below = name.removeprefix(GIT).partition(":")
    listed = _git("ls-tree", "-r", "-z", "--full-tree", revision or "HEAD", "--", below or REPORTS)
    blobs = {}
    for line in filter(None, listed.decode().split("\0")):
        kind, _, path = line.partition("\t")
        if path.endswith(".json") and PurePosixPath(path).parent.name == "cards":
            blobs[path] = kind.split()[2]
    content = _git("cat-file", "--batch", given="".join(f"{blob}\n" for blob in blobs.values()).encode())
    for path in blobs:
        head, _, rest = content.partition(b"\n")
        size = int(head.split()[2])
        yield f"{revision}:{path}", rest[:size]
        content = rest[size + 1 :]


def _git(*arguments: str, given: bytes = b"") -> bytes:
    try:
        done = subprocess.run(["git", *arguments], input=given, capture_output=True, timeout=60, check=True)
    except FileNotFoundError:
        raise UserError("git:REVISION needs the program git, which is not installed") from None
    except subprocess.CalledProcessError as error:
        said = one_line(Exception(error.stderr.decode(errors="replace")))
        raise UserError(
            f"git {arguments[0]}: {said}; give git:REVISION[:PATH] inside the repository"
        ) from None
    return done.stdout
