"""`cycles commit`: commit a reservation by hand."""

from __future__ import annotations

import click

import cycles
from cycles.cli import _format, _frame as frame
from cycles.cli._frame import Cli
from cycles.cli._options import amount
from cycles.cli._pending import report_pending


@frame.command("commit")
@click.argument("reservation_id", metavar="ID")
@click.argument("actual", metavar="AMOUNT", type=amount)
@frame.yes_option
def command(cli: Cli, reservation_id: str, actual: cycles.Amount, yes: bool) -> int | None:
    """Commit a reservation with the amount that was spent. The amount is in the journal until it is confirmed."""
    cli.server_config()
    cli.confirm(f"commit {actual} of reservation {reservation_id}?", yes=yes)
    with cli.client(journal=True) as client:
        result = client.commit_reservation(reservation_id, actual)
        if not result.raw:
            return report_pending(cli, client, actual)
    released = f", released {_format.amount_of(result.released)}" if result.released else ""
    cli.out.result(result.to_dict(), f"charged {_format.amount_of(result.charged)}{released}")
    return None
