"""`cycles journal`: the commands of `cycles.journal`, made from its table, and `cycles pending`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cycles.cli import _frame as frame
from cycles.cli._frame import Cli
from cycles.journal import _commands


@frame.group("journal")
def command() -> None:
    """Look at unsettled amounts on this machine, settle, move or discard them."""


def context_of(cli: Cli, *, yes: bool = False) -> _commands.Context:
    """Return what a command on the journal gets."""
    return _commands.Context(cli.out, cli.config, lambda question: cli.confirm(question, yes=yes))


def _runs(one: _commands.JournalCommand) -> Callable[..., int]:
    def run(cli: Cli, yes: bool = False, **values: Any) -> int:
        return one.run(context_of(cli, yes=yes), **values)

    return run


for _one in _commands.COMMANDS:
    _function = _runs(_one)
    if _one.changes:
        _function = frame.yes_option(_function)
    for _argument in reversed(_one.arguments):
        if _argument.name.startswith("--"):
            _function = click.option(_argument.name, is_flag=True, help=_argument.help)(_function)
        else:
            _function = click.argument(_argument.name, required=_argument.required)(_function)
    command.add_command(frame.command(_one.name, help=_one.help)(_function))
