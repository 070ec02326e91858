"""`cycles budgets`: all budgets of an admin server."""

from __future__ import annotations

import click

from cycles.cli import _format
from cycles.cli._admin import admin_command, admin_of
from cycles.cli._frame import Cli


@admin_command("budgets")
@click.option("--tenant", metavar="NAME", help="Only budgets of this tenant.")
@click.option("--search", metavar="TEXT", help="Only scopes that contain this.")
@click.option(
    "--status", type=click.Choice(["active", "frozen", "closed"], case_sensitive=False), help="Only this status."
)
def command(cli: Cli, tenant: str | None, search: str | None, status: str | None, admin_base_url: str | None) -> None:
    """List the budgets of all tenants: spent, reserved, what is left, and their status."""
    with admin_of(cli, admin_base_url) as admin:
        listed = admin.budgets(tenant=tenant, search=search, status=status and status.upper())
        found = sorted(listed, key=lambda budget: (budget.scope.split("/"), budget.unit))
    rows = [
        (
            budget.scope,
            _format.unit_of(budget.allocated),
            _format.number_of(budget.spent),
            _format.number_of(budget.reserved),
            _format.number_of(budget.remaining),
            _format.number_of(budget.allocated),
            budget.status,
        )
        for budget in found
    ]
    document, right = {"budgets": [budget.to_dict() for budget in found]}, ("spent", "reserved", "left", "of")
    cli.out.listing(document, ("scope", "unit", *right, "status"), rows, none="no budget", right=right)
