"""`cycles run`: a budget for a program that has no code for it. The work is done by `cycles.proxy`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

import cycles
from cycles._version import install_extra
from cycles.cli import _frame as frame
from cycles.cli._frame import Cli
from cycles.cli._output import say
from cycles.cli._proxying import print_ended, proxy_options, require_packages, run_program

if TYPE_CHECKING:
    from cycles.proxy._run import Ended


_OF_SHARES: Final = ("share", "budget", "arguments", "no_cycles_env", "agent_settings")


@frame.command("run", context_settings={"allow_interspersed_args": False})
@proxy_options
@click.option(
    "--no-tunnel", "tunnel", is_flag=True, flag_value=False, default=True, help="Leave HTTPS_PROXY unchanged."
)
@click.option(
    "--capture", is_flag=True, help="Meter connections to providers too, with a certificate that is made for this run."
)
@click.option(
    "--no-agent-settings",
    "agent_settings",
    is_flag=True,
    flag_value=False,
    default=True,
    help="Give codex and gemini no settings of their own.",
)
@click.option("--sealed", is_flag=True, help="Give the command no network but loopback and the proxy (Linux).")
@click.option(
    "--share-port",
    metavar="PORT",
    multiple=True,
    type=click.IntRange(1, 65_535),
    help="With --sealed: a port of this machine that the command may reach; may be repeated.",
)
@click.option(
    "--share", metavar="NAME", help="Inside a run: a part of its budget for this command, with --budget as its limit."
)
@click.option("--no-cycles-env", is_flag=True, help="Leave CYCLES_* unset for the command.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND [ARGUMENTS]...")
def command(
    cli: Cli, arguments: tuple[str, ...], no_cycles_env: bool, capture: bool, share: str | None, **options: Any
) -> int:
    """Run a command; its OpenAI, Anthropic and Gemini calls are charged to a budget, and denied beyond it."""
    if not arguments:
        raise click.UsageError("there is no command: write it after --, like cycles run --budget 5USD -- COMMAND")
    if os.name != "posix":
        raise click.UsageError("cycles run needs a POSIX system: start cycles proxy and the command instead")
    from cycles.proxy._sealing import CannotSealError

    if share is not None:
        ended = _run_share(share, arguments, options, cycles_env=not no_cycles_env)
    else:
        options["captured_hosts"] = _captured_hosts(arguments, capture, options)
        if options["share_port"] and not options["sealed"]:
            raise click.UsageError("--share-port needs --sealed: without it the command reaches every port")
        try:
            ended = run_program(cli, arguments, options, cycles_env=not no_cycles_env)
        except CannotSealError as error:
            if cli.out.json:
                cli.out.document({"error": "CANNOT_SEAL", "message": f"{error}"})
            else:
                say(f"error: {error}")
            return frame.NO_RESPONSE
    return print_ended(cli, ended)


def _run_share(share: str, arguments: tuple[str, ...], options: dict[str, Any], *, cycles_env: bool) -> Ended:
    ctx = click.get_current_context()
    for param in ctx.command.params:
        given = ctx.get_parameter_source(param.name or "") == ParameterSource.COMMANDLINE
        if given and param.expose_value and param.name not in _OF_SHARES:
            raise click.UsageError(f"{param.opts[0]} belongs to the run around this one: leave it out with --share")
    if options["budget"] is None:
        raise click.UsageError("--share needs its limit: pass --budget 1USD, or a part of what is left, like 20%")
    if isinstance(options["budget"], tuple):
        raise click.UsageError("--share has no window: pass --budget like 1USD")
    require_packages()
    from cycles.proxy._child import blocked_signals
    from cycles.proxy._share_run import run_share

    with blocked_signals():
        return run_share(
            share,
            options["budget"],
            arguments,
            agent_settings=options["agent_settings"],
            cycles_env=cycles_env,
            say=lambda message: say(f"cycles: {message}"),
        )


def _captured_hosts(arguments: tuple[str, ...], capture: bool, options: dict[str, Any]) -> frozenset[str] | None:
    """Return which hosts are captured; None: those of all routes."""
    from cycles.proxy._agents import CODEX_HOST, can_capture, is_codex

    if capture:
        if not options["tunnel"]:
            raise click.UsageError("--capture needs the tunnel: leave --no-tunnel out")
        if not can_capture():
            raise cycles.ConfigurationError(f"--capture needs the package cryptography: run {install_extra('capture')}")
        return None
    codex = options["agent_settings"] and options["tunnel"] and is_codex(arguments)
    return frozenset({CODEX_HOST}) if codex and can_capture() else frozenset()
