"""`cycles fund`: add to a budget."""

from __future__ import annotations

import click

import cycles
from cycles.cli import _format, _frame as frame
from cycles.cli._admin import admin_command, admin_of, reason_option
from cycles.cli._frame import Cli
from cycles.cli._options import amount as amount_type


@admin_command("fund")
@click.argument("scope")
@click.argument("amount", type=amount_type)
@reason_option
@click.option("--idempotency-key", metavar="KEY", help="Of this change: a repetition within 24 hours changes nothing.")
@frame.yes_option
def command(
    cli: Cli,
    scope: str,
    amount: cycles.Amount,
    reason: str | None,
    idempotency_key: str | None,
    yes: bool,
    admin_base_url: str | None,
) -> None:
    """Add AMOUNT to the budget of SCOPE, like tenant:acme 5USD. The unit selects the budget."""
    with admin_of(cli, admin_base_url) as admin:
        cli.confirm(f"add {amount} to the budget of {scope}?", yes=yes)
        done = admin.credit(scope, amount, reason=reason, idempotency_key=idempotency_key)
    before, after = _format.amount_of(done.previous_allocated), _format.amount_of(done.new_allocated)
    left = _format.amount_of(done.new_remaining)
    cli.out.result(done.to_dict(), f"{scope.lower()}: {before} became {after}, {left} left")
