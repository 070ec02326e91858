"""What every command has: shared options, settings, a client, output, and one exit status per kind of error.

A command is a function with `@command()` that gets a `Cli` and its own options, and returns its exit status (None is
0). To add one, write its module and add a line to the table of `_app`.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click

import cycles
from cycles.cli._help import Command, Group
from cycles.cli._output import Output, say
from cycles.journal import _settings
from cycles.journal._terminal import confirm

DONE: Final = 0
REJECTED: Final = 1  # the server rejected it
USAGE: Final = 2  # wrong usage or configuration: nothing was sent
NO_RESPONSE: Final = 3  # no usable response from the server
UNSETTLED: Final = 4  # something is left unsettled
INTERRUPTED: Final = 130

TRANSPORT_ERROR: Final = "TRANSPORT_ERROR"
WRONG_USAGE: Final = "WRONG_USAGE"
_CODES_OF: Final = {400: "INVALID_REQUEST", 401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "NOT_FOUND"}
_KEY: Final = "cycles.cli"  # of the shared options in the context of click

SUBCOMMAND: Final = "COMMAND [ARGUMENTS]..."
F = TypeVar("F", bound=Callable[..., Any])


class Declined(click.Abort):
    """The user declined a prompt."""


class Cli:
    """What a command gets.

    Attributes:
        out: Where it prints.
        flags: Settings that were given as options.
        profile_name: The name of the profile, or None.
    """

    def __init__(self, given: dict[str, Any]) -> None:
        names = ("base_url", "tenant", "journal_dir")
        self.flags: dict[str, Any] = {name: given[name] for name in names if given.get(name)}
        self.profile_name: str | None = given.get("profile")
        self.out: Output = Output(json=bool(given.get("json")))

    def config(self) -> cycles.Config:
        """Return the configuration. Its members may be missing.

        Raises:
            ConfigurationError: a setting or the profile is wrong.
        """
        return _settings.configuration(self.flags, self.profile_name)

    def server_config(self) -> cycles.Config:
        """Return the configuration of a command that needs the server.

        Raises:
            ConfigurationError: the address or the key is missing, or a setting is wrong.
        """
        config = self.config()
        if not config.base_url:
            raise cycles.ConfigurationError(
                "no server address; set CYCLES_BASE_URL or pass --base-url, or run a server with cycles dev"
            )
        if not config.api_key:
            raise cycles.ConfigurationError("no API key; set CYCLES_API_KEY, or put api_key into a profile")
        return config

    @contextmanager
    def client(self, *, journal: bool = False, **settings: Any) -> Iterator[cycles.Cycles]:
        """Yield a client. Only commands that settle open the journal: a client settles what it finds there.

        Args:
            journal: Whether the journal is opened.
            settings: More settings of the client.

        Raises:
            ConfigurationError: a setting is missing or wrong.
        """
        config = self.server_config()
        with cycles.Cycles(config if journal else config.with_settings(journal=False), **settings) as client:
            yield client

    def confirm(self, question: str, *, yes: bool) -> None:
        """Prompt before something is changed. Ends the command if the user declines, or if there is no terminal."""
        if yes:
            return
        if not sys.stdin.isatty():
            raise click.UsageError("there is no terminal for a prompt; pass --yes to confirm")
        if not confirm(question):
            raise Declined

    def fail(self, error: cycles.CyclesError) -> int:
        """Print an error and return the exit status of its kind."""
        status = status_of(error)
        if self.out.json:
            self.out.document(error_document(error))
        else:
            say(f"error: {error}")
        return status


def status_of(error: cycles.CyclesError) -> int:
    """Return the exit status of an error."""
    if isinstance(error, cycles.ServerError | cycles.TransportError):
        return NO_RESPONSE
    if isinstance(error, cycles.ProtocolError):
        return REJECTED
    return USAGE


def error_document(error: cycles.CyclesError) -> dict[str, Any]:
    """Return the JSON document of a failure."""
    document = {"error": error_code(error), "message": str(error)}
    request_id = getattr(error, "request_id", None)
    return document if request_id is None else {**document, "request_id": request_id}


def error_code(error: cycles.CyclesError) -> str:
    """Return the protocol's code of an error, `WRONG_USAGE` if nothing was sent, or `TRANSPORT_ERROR`."""
    if isinstance(error, cycles.ProtocolError):
        known = error.code or error.reason_code or _CODES_OF.get(error.status or 0)
        return known or TRANSPORT_ERROR
    return WRONG_USAGE if status_of(error) == USAGE else TRANSPORT_ERROR


def close_stdout() -> int:
    """Discard what is still to be printed: the reader of the pipe has what it needs. Returns 0."""
    # The descriptor, because the interpreter flushes the stream once more when it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


def store(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep the value of a shared option for `Cli`."""
    if value is not None and value is not False:
        ctx.meta.setdefault(_KEY, {})[parameter.name] = value  # an option of the command overrides one before it


def shared_options(function: F) -> F:
    """Add `--json` and the options for settings to a command or a group."""
    return _json_option(_setting_options(function))


def _json_option(function: F) -> F:
    option = click.option(
        "--json", is_flag=True, expose_value=False, callback=store, help="Print JSON documents for programs."
    )
    return option(function)


def _setting_options(function: F) -> F:
    for name, metavar, text in (
        ("--journal-dir", "DIR", "The directory of the journal."),
        ("--tenant", "NAME", "The tenant."),
        ("--base-url", "URL", "The address of the server."),
        ("--profile", "NAME", "Take settings from the table [NAME] of config.toml."),
    ):
        function = click.option(name, metavar=metavar, expose_value=False, callback=store, help=text)(function)
    return function


def command(
    name: str | None = None, *, settings: bool = True, **attributes: Any
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a command. Its first argument is a `Cli`; it returns its exit status, or None for 0."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run(**options: Any) -> int:
            cli = Cli(click.get_current_context().meta.get(_KEY, {}))
            try:
                return function(cli, **options) or DONE
            except cycles.CyclesError as error:
                return cli.fail(error)
            except BrokenPipeError:
                return close_stdout()

        options: Callable[[Callable[..., int]], Callable[..., int]] = shared_options if settings else _json_option
        return click.command(name, Command, **attributes)(options(run))

    return decorate


def yes_option(function: F) -> F:
    """Add ``--yes`` to a command that changes something."""
    return click.option("--yes", "-y", is_flag=True, help="Confirm without a prompt.")(function)


def group(
    name: str, *, default: click.Command | None = None, **attributes: Any
) -> Callable[[Callable[..., Any]], click.Group]:
    """Make a function a group of commands. Without the name of one of them it runs `default`, if there is one."""

    def decorate(function: Callable[..., Any]) -> click.Group:
        @functools.wraps(function)
        def run(**options: Any) -> Any:
            ctx = click.get_current_context()
            if default is not None and ctx.invoked_subcommand is None:
                return ctx.invoke(default)
            needs_command()
            return function(**options)

        attributes.update(invoke_without_command=True, subcommand_metavar=SUBCOMMAND)
        return click.command(name, Group, **attributes)(shared_options(run))

    return decorate


def needs_command() -> None:
    """Raise `click.UsageError` if a group was called without one of its commands."""
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is None and isinstance(ctx.command, click.Group):
        names = ctx.command.list_commands(ctx)
        choice = names[0] if len(names) == 1 else f"COMMAND, which is one of {', '.join(names)}"
        raise click.UsageError(f"there is no command: write {ctx.command_path} {choice}", ctx)
