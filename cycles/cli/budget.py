"""`cycles budget`: set, freeze and unfreeze a budget."""

from __future__ import annotations

from typing import Any

import click

import cycles
from cycles.cli import _format, _frame as frame
from cycles.cli._admin import admin_command, admin_of, reason_option, show_budget
from cycles.cli._frame import Cli
from cycles.cli._options import amount as amount_type


@admin_command("set")
@click.argument("scope")
@click.argument("amount", type=amount_type)
@reason_option
@frame.yes_option
def _set(
    cli: Cli, scope: str, amount: cycles.Amount, reason: str | None, yes: bool, admin_base_url: str | None
) -> None:
    """Set the budget of SCOPE to AMOUNT, like tenant:acme 100USD. What is spent stays; a missing budget is created."""
    unit = str(amount.unit)
    with admin_of(cli, admin_base_url) as admin:
        try:
            before = admin.budget(scope, unit=unit)
        except cycles.NotFoundError:
            cli.confirm(f"create the budget of {scope} with {amount}?", yes=yes)
            show_budget(cli, admin.create_budget(scope, amount))
            return
        cli.confirm(f"set the budget of {scope} from {_format.amount_of(before.allocated)} to {amount}?", yes=yes)
        admin.resize(scope, amount, reason=reason)
        show_budget(cli, admin.budget(scope, unit=unit))


def _frozen(verb: str, text: str) -> click.Command:
    def change(
        cli: Cli, scope: str, unit: str | None, reason: str | None, yes: bool, admin_base_url: str | None
    ) -> None:
        with admin_of(cli, admin_base_url) as admin:
            unit_of_scope = _unit_of(admin, scope, unit)
            cli.confirm(f"{verb} the budget of {scope} in {unit_of_scope}?", yes=yes)
            show_budget(cli, getattr(admin, verb)(scope, unit=unit_of_scope, reason=reason))

    change.__doc__ = text
    function: Any = frame.yes_option(change)
    function = click.option(
        "--unit",
        type=click.Choice([str(each) for each in cycles.Unit], case_sensitive=False),
        help="If the scope has budgets in several units.",
    )(reason_option(function))
    return admin_command(verb)(click.argument("scope")(function))


def _unit_of(admin: cycles.Admin, scope: str, unit: str | None) -> str:
    """Return the unit of the only budget of a scope.

    Raises:
        NotFoundError: if it has none.
        ConfigurationError: if it has several, and none is named.
    """
    if unit is not None:
        return unit
    units = [str(each.unit) for each in admin.budgets(scope_prefix=scope) if each.scope == scope.lower()]
    if len(units) > 1:
        raise cycles.ConfigurationError(f"{scope} has budgets in {', '.join(units)}: pass --unit with one of them")
    return units[0] if units else str(cycles.Unit.USD_MICROCENTS)


@frame.group("budget")
def command() -> None:
    """Set, freeze or unfreeze a budget. cycles budgets lists them."""


command.add_command(_set)
command.add_command(_frozen("freeze", "Freeze the budget of SCOPE: nothing can be reserved until it is unfrozen."))
command.add_command(_frozen("unfreeze", "Make a frozen budget active again."))
