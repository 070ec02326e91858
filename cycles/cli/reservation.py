"""`cycles reservation`: one reservation in detail."""

from __future__ import annotations

import click

import cycles
from cycles.cli import _format, _frame as frame
from cycles.cli._frame import Cli
from cycles.cli._output import Cell, styled


@frame.command("reservation")
@click.argument("reservation_id", metavar="ID")
def command(cli: Cli, reservation_id: str) -> None:
    """Show one reservation."""
    with cli.client() as client:
        found = client.reservation(reservation_id)
    if cli.out.json:
        cli.out.document(found.to_dict())
    else:
        cli.out.pairs(_pairs(found))


def _pairs(found: cycles.ReservationDetail) -> list[tuple[str, Cell | None]]:
    now = _format.now_ms()
    active = found.status == "ACTIVE"
    left = found.expires_at_ms - now
    return [
        ("reservation", found.reservation_id),
        ("status", styled(found.status, _format.STATUS_STYLES.get(found.status, ""))),
        ("action", f"{found.action.kind}/{found.action.name}"),
        ("scope", found.scope_path),
        ("reserved", _format.amount_of(found.reserved)),
        ("committed", None if found.committed is None else _format.amount_of(found.committed)),
        ("made", f"{_format.moment(found.created_at_ms)}, {_format.duration(max(0, now - found.created_at_ms))} ago"),
        ("expires", f"{_format.moment(found.expires_at_ms)}, in {_format.duration(left)}" if active else None),
        ("ended", None if found.finalized_at_ms is None else _format.moment(found.finalized_at_ms)),
        ("key", found.idempotency_key),
        *((f"metadata {name}", str(value)) for name, value in (found.metadata or {}).items()),
        *((f"committed {name}", str(value)) for name, value in (found.committed_metadata or {}).items()),
    ]
