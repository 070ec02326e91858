"""`cycles release`: release a reservation by hand."""

from __future__ import annotations

import click

from cycles.cli import _format, _frame as frame
from cycles.cli._frame import Cli


@frame.command("release")
@click.argument("reservation_id", metavar="ID")
@click.option("--reason", metavar="TEXT", help="Why; the server stores it.")
@frame.yes_option
def command(cli: Cli, reservation_id: str, reason: str | None, yes: bool) -> None:
    """Release the budget that a reservation holds. Its guard can no longer commit."""
    cli.server_config()
    cli.confirm(f"release the budget of reservation {reservation_id}?", yes=yes)
    with cli.client() as client:
        result = client.release_reservation(reservation_id, reason)
    cli.out.result(result.to_dict(), f"released {_format.amount_of(result.released)}")
