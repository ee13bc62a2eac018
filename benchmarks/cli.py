"""The command line: ``weightaug COMMAND ...``, each command a file in :mod:`benchmarks.commands`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NoReturn

from benchmarks.commands import commands
from benchmarks.errors import UserError, unknown_name
from benchmarks.interruption import handled


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and exits with 2, without a page of usage."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        print(f"weightaug: error: {message}; see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(2)


def build_parser(known: Mapping[str, ModuleType]) -> argparse.ArgumentParser:
    parser = Parser(prog="weightaug", description="Is training under perturbed weights what the papers say?")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, command in known.items():
        command.add_arguments(subparsers.add_parser(name, help=command.HELP, description=command.HELP))
    return parser


def parse(given: Sequence[str], known: Mapping[str, ModuleType]) -> argparse.Namespace:
    """The options; settings (KEY=VALUE) may stand anywhere among them."""
    parser = build_parser(known)
    options, others = parser.parse_known_args(given)
    settings = hasattr(options, "overrides")
    strangers = [text for text in others if text.startswith("-") or "=" not in text or not settings]
    if strangers:
        parser.error(f"unknown argument {strangers[0]!r}")
    if others:
        options.overrides += others
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 some cells failed, 2 something to mend."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    known = commands()
    try:
        if given and not given[0].startswith("-") and given[0] not in known:
            raise unknown_name("command", given[0], known)
        options = parse(given, known)
        with handled(signal.SIGINT, signal.SIGTERM):
            return int(known[options.command].run(options))
    except UserError as error:
        print(f"weightaug: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has gone
        sys.stderr.close()
        return 1
    except OSError as error:
        print(f"weightaug: error: {error.strerror or error}: {error.filename or 'no file'}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(
            "weightaug: stopped; what was finished is kept, the same command goes on from here",
            file=sys.stderr,
        )
        return int(getattr(stop, "exit_code", 128 + signal.SIGINT))


if __name__ == "__main__":
    sys.exit(main())
