"""`cycles pending`: unsettled records of this machine."""

from __future__ import annotations

from cycles.cli import _frame as frame
from cycles.cli._frame import Cli
from cycles.journal import _commands


@frame.command("pending")
def command(cli: Cli) -> int:
    """List unsettled amounts of all servers on this machine; exits 4 if there are any. Changes no file."""
    return _commands.pending(_commands.Context(cli.out, cli.config, lambda question: None))
