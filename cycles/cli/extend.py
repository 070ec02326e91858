"""`cycles extend`: extend a lease by hand."""

from __future__ import annotations

import click

from cycles.cli import _format, _frame as frame
from cycles.cli._frame import Cli


@frame.command("extend")
@click.argument("reservation_id", metavar="ID")
@click.argument("milliseconds", metavar="MS", type=click.IntRange(1, 86_400_000))
@frame.yes_option
def command(cli: Cli, reservation_id: str, milliseconds: int, yes: bool) -> None:
    """Extend the lease of a reservation by MS milliseconds."""
    cli.server_config()
    cli.confirm(f"extend reservation {reservation_id} by {_format.duration(milliseconds)}?", yes=yes)
    with cli.client() as client:
        result = client.extend_reservation(reservation_id, milliseconds)
    cli.out.result(result.to_dict(), f"extended until {_format.moment(result.expires_at_ms)}")
