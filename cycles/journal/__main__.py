"""``python -m cycles.journal``: the commands of ``cycles journal`` without an extra."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import cycles
from cycles.journal import _settings
from cycles.journal._commands import COMMANDS, Context, JournalCommand
from cycles.journal._terminal import TextTerminal, confirm, printable, say

USAGE: Final = 2
INTERRUPTED: Final = 130
_SETTINGS: Final = ("base_url", "tenant", "journal_dir")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser, given = _parser(), None
    given = vars(parser.parse_args(arguments))
    logging.basicConfig(format="%(message)s", handlers=[_Lines(logging.WARNING)])
    command: JournalCommand = given.pop("command")
    try:
        return command.run(_context(parser, given), **_values(command, given))
    except cycles.CyclesError as error:
        say(f"error: {error}")
        return USAGE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as stopped:
        say("nothing was changed" if isinstance(stopped, _Declined) else "interrupted")
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cycles.journal", description="Look at unsettled amounts, settle, move or discard them."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        one = commands.add_parser(command.name, help=command.help, description=command.help)
        one.set_defaults(command=command)
        for argument in command.arguments:
            if argument.name.startswith("--"):
                one.add_argument(argument.name, action="store_true", help=argument.help)
            else:
                one.add_argument(argument.name, metavar=argument.name.upper(), nargs=None if argument.required else "?")
        one.add_argument("--json", action="store_true", help="print JSON documents for programs")
        one.add_argument("--profile", metavar="NAME", help="take settings from the table [NAME] of config.toml")
        for name in _SETTINGS:
            one.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=f"the setting {name}")
        if command.changes:
            one.add_argument("--yes", "-y", action="store_true", help="confirm without a prompt")
    return parser


def _values(command: JournalCommand, given: dict[str, Any]) -> dict[str, Any]:
    names = [argument.name.removeprefix("--").replace("-", "_") for argument in command.arguments]
    return {name: given[name] for name in names}


def _context(parser: argparse.ArgumentParser, given: dict[str, Any]) -> Context:
    flags = {name: given[name] for name in _SETTINGS if given[name]}

    def prompt(question: str) -> None:
        if given["yes"]:
            return
        if not sys.stdin.isatty():
            parser.error("there is no terminal for a prompt; pass --yes to confirm")
        if not confirm(question):
            raise _Declined

    return Context(
        terminal=TextTerminal(json=given["json"]),
        config=lambda: _settings.configuration(flags, given["profile"]),
        confirm=prompt,
    )


class _Declined(KeyboardInterrupt):
    """The user declined a prompt."""


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{record.levelname.lower()}: {printable(record.getMessage())}\n")


if __name__ == "__main__":
    sys.exit(main())
