"""The command line. Heavy packages are imported inside the commands, so that ``weightaug --help`` is quick."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from benchmarks.errors import UserError, unknown_name

LISTS = {
    "methods": "method",
    "models": "model",
    "datasets": "dataset",
    "recipes": "recipe",
    "tables": "table",
}
COMMANDS = ("list", "run", "reproduce", "report")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and exits with 2, without a page of usage."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        print(f"weightaug: error: {message}; see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(2)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="weightaug", description="Is training under perturbed weights what the papers say?")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    listing = commands.add_parser("list", help="what is registered: " + ", ".join(LISTS))
    listing.add_argument("what", metavar="WHAT", help=" | ".join(LISTS))
    run = commands.add_parser("run", help="train and evaluate one cell")
    _overrides(run, "method=damp method.sigma=0.2 model=resnet_tiny seed=3 device=cpu")
    for name, text in (
        ("reproduce", "train the cells of a table that are not done yet, then write its report"),
        ("report", "write a table's report from the cards that there are, without training"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument(
            "table", metavar="TABLE", help="such as damp/table2; see `weightaug list tables`"
        )
        command.add_argument("--scale", default="full", help="full (default), reduced or smoke")
        command.add_argument(
            "--seeds", type=int, help="number of seeds; default: what the table says for the scale"
        )
        command.add_argument("--reports", default="reports", metavar="FOLDER", help="where reports go")
        command.add_argument(
            "--with",
            dest="rows",
            action="append",
            default=[],
            metavar="OVERRIDES",
            help="one more row of your own, e.g. --with 'method=mine method.strength=2' (repeatable)",
        )
        if name == "report":
            command.add_argument(
                "--cards", metavar="FOLDER", help="folder of cards to use instead of the store's"
            )
        _overrides(command, "device=cuda wandb=disabled workers=2")
    return parser


def _overrides(parser: argparse.ArgumentParser, example: str) -> None:
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=f"settings, e.g. {example}")


def parse(given: Sequence[str]) -> argparse.Namespace:
    """The options; settings (KEY=VALUE) may stand anywhere among them."""
    parser = build_parser()
    options, others = parser.parse_known_args(given)
    strangers = [text for text in others if text.startswith("-") or "=" not in text]
    if strangers:
        parser.error(f"unknown argument {strangers[0]!r}")
    if others:
        options.overrides += others
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 some cells failed, 2 something to mend."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given and not given[0].startswith("-") and given[0] not in COMMANDS:
            raise unknown_name("command", given[0], COMMANDS)
        return _dispatch(parse(given))
    except UserError as error:
        print(f"weightaug: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has gone
        sys.stderr.close()
        return 1
    except OSError as error:
        print(f"weightaug: error: {error.strerror or error}: {error.filename or 'no file'}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "weightaug: stopped; what was finished is kept, the same command goes on from here",
            file=sys.stderr,
        )
        return 130


def _dispatch(options: argparse.Namespace) -> int:
    if options.command == "list":
        return _list(options.what)
    if options.command == "run":
        from benchmarks.launch.single import run

        return run(options.overrides)
    from benchmarks.launch.reproduce import Request, report, reproduce

    request = Request.parse(
        options.table, options.scale, options.seeds, options.rows, options.overrides, options.reports
    )
    return reproduce(request) if options.command == "reproduce" else report(request, options.cards)


def _list(what: str) -> int:
    if what not in LISTS:
        raise unknown_name("list", what, LISTS)
    from benchmarks.registry import entries

    found = {name: entry.description for name, entry in entries(LISTS[what]).items()}
    width = max(map(len, found), default=0)
    for name, description in found.items():
        print(f"{name:{width}}  {description}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
