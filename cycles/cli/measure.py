"""`cycles measure`: run a program without a limit, and keep what its calls cost; `cycles report` reads it."""

from __future__ import annotations

import os
from typing import Any, Final

import click

from cycles.cli import _frame as frame
from cycles.cli._frame import Cli
from cycles.cli._proxying import print_ended, proxy_options, run_program

_DEFAULTS: Final = {"keep": "measure", "unknown_model": "allow=0USD"}


@frame.command("measure", context_settings={"allow_interspersed_args": False, "default_map": _DEFAULTS})
@proxy_options
@click.option("--no-cycles-env", is_flag=True, help="Leave CYCLES_* unset for the command.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND [ARGUMENTS]...")
def command(cli: Cli, arguments: tuple[str, ...], no_cycles_env: bool, **options: Any) -> int:
    """Run a command without a limit, and keep what its calls cost: cycles report says what a budget would do."""
    if not arguments:
        raise click.UsageError("there is no command: write it after --, like cycles measure -- COMMAND")
    if os.name != "posix":
        raise click.UsageError("cycles measure needs a POSIX system: it starts the command as cycles run does")
    for name in ("budget", "timezone", "warn_at", "ask_at"):
        if options[name]:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"cycles measure has no limit: leave {option} out, or use cycles run")
    more = {"tunnel": True, "agent_settings": True, "unlimited": True}
    return print_ended(cli, run_program(cli, arguments, {**options, **more}, cycles_env=not no_cycles_env))
