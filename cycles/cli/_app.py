"""The table of commands, and the function that runs one of them. A command is imported when it is used."""

from __future__ import annotations

import errno
import importlib
import io
import itertools
import logging
import os
import platform
import re
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

import cycles
from cycles._version import PROTOCOL_VERSION
from cycles.cli._frame import (
    INTERRUPTED,
    REJECTED,
    SUBCOMMAND,
    USAGE,
    WRONG_USAGE,
    Declined,
    close_stdout,
    needs_command,
    shared_options,
)
from cycles.cli._help import Group
from cycles.cli._options import LEVELS
from cycles.cli._output import print_document, say
from cycles.cli._warnings import Lines

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "dev": ("cycles.cli.dev", "Run a server with a dashboard, for development."),
    "doctor": ("cycles.cli.doctor", "Check settings, server and journal."),
    "run": ("cycles.cli.run", "Run a command under a budget."),
    "runs": ("cycles.cli.runs", "List kept runs, reset what one has spent, or delete it."),
    "measure": ("cycles.cli.measure", "Run a command without a limit, and keep what its calls cost."),
    "report": ("cycles.cli.report", "Show what measured calls cost, and what a budget would deny."),
    "proxy": ("cycles.cli.proxy", "Serve the proxy of cycles run."),
    "mcp": ("cycles.cli.mcp", "Serve budget tools to agents over MCP."),
    "balances": ("cycles.cli.balances", "Show budgets: allocated, spent, reserved, what is left."),
    "budgets": ("cycles.cli.budgets", "List the budgets of all tenants (admin)."),
    "fund": ("cycles.cli.fund", "Add to a budget (admin)."),
    "budget": ("cycles.cli.budget", "Set, freeze or unfreeze a budget (admin)."),
    "reservations": ("cycles.cli.reservations", "List reservations."),
    "reservation": ("cycles.cli.reservation", "Show one reservation."),
    "spend": ("cycles.cli.spend", "Show what was spent, by agent, model, scope and more."),
    "reconcile": ("cycles.cli.reconcile", "Compare the bill of a provider with the ledger."),
    "release": ("cycles.cli.release", "Release a reservation by hand."),
    "extend": ("cycles.cli.extend", "Extend a lease by hand."),
    "commit": ("cycles.cli.commit", "Commit a reservation by hand."),
    "check": ("cycles.cli.check", "Show what the server would decide now."),
    "record": ("cycles.cli.record", "Charge an amount without a reservation."),
    "pending": ("cycles.cli.pending", "List unsettled amounts of this machine."),
    "journal": ("cycles.cli.journal", "Look at unsettled records, settle, move or discard them."),
    "flush": ("cycles.cli.flush", "Settle what is pending now."),
    "top": ("cycles.cli.top", "Watch budgets, reservations and pending records."),
    "evidence": ("cycles.cli.evidence", "Verify signed evidence."),
    "prices": ("cycles.cli.prices", "Show prices, update them, and find models without one."),
    "spec": ("cycles.cli.spec", "Compare two versions of the protocol."),
    "docs": ("cycles.cli.docs", "Print the documentation."),
}
"""Name of a command: its module, which has it as `command`, and its short help."""


_RANGE_ERROR: Final = re.compile(r"is not (?:a valid (?:integer|float) range|in the range .*)$")
_UNWRITABLE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_COMPLETION: Final = "_CYCLES_COMPLETE"  # a shell that completes a command sets it; click reads it


class CommandTable(Group):
    """The group `cycles`: it lists its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        found: Any = importlib.import_module(COMMANDS[cmd_name][0])
        command = found.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Print the table with the short helps that it contains."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        python = f"{platform.python_implementation()} {platform.python_version()}"
        click.echo(f"cycles {cycles.__version__}, protocol {PROTOCOL_VERSION}, {python}")
        ctx.exit()


@click.group(
    cls=CommandTable,
    invoke_without_command=True,
    subcommand_metavar=SUBCOMMAND,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@shared_options
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Print the versions."
)
def app() -> None:
    """See and limit what AI agents spend with a Cycles server.

    Settings come from options, then from --profile, then from CYCLES_BASE_URL, CYCLES_API_KEY and the other variables.
    """
    needs_command()


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _open_closed_streams()
    _log_to_stderr()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal of another encoding
    try:
        status = _run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        return close_stdout()
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        close_stdout()
        say(f"error: the output cannot be written: {error.strerror}; free some space, or send it elsewhere")
        return REJECTED
    return status


def _open_closed_streams() -> None:
    """Discard what is printed to a stream that the caller has closed; Python has None for it."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - it is no file


def _run(arguments: list[str]) -> int:
    if not arguments and _COMPLETION not in os.environ:
        with click.Context(app, info_name="cycles", **app.context_settings) as context:
            click.echo(app.get_help(context), err=True)
        return USAGE
    try:
        status = app.main(arguments, prog_name="cycles", complete_var=_COMPLETION, standalone_mode=False)
    except click.ClickException as wrong:
        _explain(wrong, as_document="--json" in itertools.takewhile(lambda word: word != "--", arguments))
        return USAGE
    except (click.Abort, KeyboardInterrupt) as stopped:
        say("nothing was changed" if isinstance(stopped, Declined) else "interrupted")
        return INTERRUPTED
    return int(status or 0)


def _explain(wrong: click.ClickException, *, as_document: bool) -> None:
    message = _level_advice(wrong) or " ".join(wrong.format_message().rstrip(".").split())  # choices are on own lines
    bounded = getattr(getattr(wrong, "param", None), "type", None)
    if isinstance(bounded, click.IntRange | click.FloatRange):
        message = _RANGE_ERROR.sub(f"is not {_bounds(bounded)}", message)
    message = f"{message[:1].lower()}{message[1:]}"
    context = getattr(wrong, "ctx", None)
    usage = None if context is None else context.get_usage().removeprefix("Usage: ")
    if as_document:
        print_document({"error": WRONG_USAGE, "message": message, **({"usage": usage} if usage else {})})
        return
    say(f"error: {message}")
    if context is not None:
        say(f"usage: {usage}; {context.command_path} --help explains it")


def _level_advice(wrong: click.ClickException) -> str | None:
    """Return what to write in place of an option like ``--agent``; click suggests ``--tenant``."""
    if not isinstance(wrong, click.NoSuchOption) or wrong.ctx is None:
        return None
    level = wrong.option_name.removeprefix("--")
    if level not in LEVELS:
        return None
    is_taken = any(parameter.name == "subject" for parameter in wrong.ctx.command.params)
    return f"no such option '--{level}'" + (f"; write --subject {level}=NAME" if is_taken else "")


def _bounds(kind: click.IntRange | click.FloatRange) -> str:
    """Return what a number must be, for example ``an integer from 0 to 65535``."""
    name = "an integer" if isinstance(kind, click.IntRange) else "a number"
    return f"{name} of {kind.min} or more" if kind.max is None else f"{name} from {kind.min} to {kind.max}"


def _log_to_stderr() -> None:
    """Print warnings of the SDK as lines, with control characters escaped."""
    logger = logging.getLogger("cycles")
    if not logger.handlers:
        logger.addHandler(Lines())
        logger.propagate = False
