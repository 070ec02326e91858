"""What the commands over `cycles.Admin` share: where the admin server and its key come from."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

import cycles
from cycles.cli import _format, _frame as frame
from cycles.cli._frame import Cli
from cycles.journal import _settings

F = TypeVar("F", bound=Callable[..., Any])


def admin_of(cli: Cli, url: str | None) -> cycles.Admin:
    """Return the client of the admin server: of an option, then of the profile, then of the environment.

    Raises:
        ConfigurationError: if its address or its key is missing.
    """
    profile = {} if cli.profile_name is None else _settings.profile(cli.profile_name)
    base_url = url or profile.get("admin_base_url") or os.environ.get("CYCLES_ADMIN_BASE_URL")
    key = profile.get("admin_api_key") or os.environ.get("CYCLES_ADMIN_API_KEY")
    if not base_url:
        raise cycles.ConfigurationError(
            "no admin server: set CYCLES_ADMIN_BASE_URL or pass --admin-base-url; cycles dev --admin runs one"
        )
    if not key:
        raise cycles.ConfigurationError("no admin key: set CYCLES_ADMIN_API_KEY, or put admin_api_key into a profile")
    return cycles.Admin(base_url, key)


def admin_command(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a command that gets ``admin_base_url`` beside its own options."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        options = (
            click.option("--profile", metavar="NAME", expose_value=False, callback=frame.store, help=_PROFILE),
            click.option("--admin-base-url", metavar="URL", help="The address of the admin server."),
        )
        for option in options:
            function = option(function)
        return frame.command(name, settings=False)(function)

    return decorate


_PROFILE = "Take admin_base_url and admin_api_key from the table [NAME] of config.toml."


def reason_option(function: F) -> F:
    """Add ``--reason``."""
    return click.option("--reason", metavar="TEXT", help="Why; the audit log has it.")(function)


def show_budget(cli: Cli, budget: Any) -> None:
    """Print a budget after a change."""
    left, whole = _format.amount_of(budget.remaining), _format.amount_of(budget.allocated)
    cli.out.result(budget.to_dict(), f"{budget.scope}: {left} of {whole} left, {budget.status}")
