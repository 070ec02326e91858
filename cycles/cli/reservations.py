"""`cycles reservations`: a list of reservations with ages and time left."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import click
from rich.text import Text

import cycles
from cycles.cli import _format, _frame as frame
from cycles.cli._frame import Cli
from cycles.cli._options import moment, subject_option
from cycles.cli._output import Cell, Output, say, styled

LIMIT: Final = 50
PAGE: Final = 200
"""The most reservations that a server returns at once."""
STATUSES: Final = ("ACTIVE", "COMMITTED", "RELEASED", "EXPIRED")


@frame.command("reservations")
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False), help="Only reservations in this state.")
@click.option("--since", type=moment, metavar="AGE|TIME", help="Made since then: 2h, 7d or 2026-01-31T12:00:00Z.")
@subject_option
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", default=LIMIT, show_default=True, help="The newest N."
)
def command(cli: Cli, status: str | None, since: datetime | None, subject: dict[str, Any] | None, limit: int) -> None:
    """List reservations, newest first."""
    with cli.client() as client:
        rows = client.reservations(
            status=status,
            created_from=since,
            subject=subject,
            sort_by="created_at_ms",
            sort_dir="desc",
            limit=min(limit + 1, PAGE),
        )
        found = list(itertools.islice(rows, limit + 1))
    has_more = len(found) > limit
    del found[limit:]
    if cli.out.json:
        cli.out.document({"reservations": [row.to_dict() for row in found], "has_more": has_more})
    elif found:
        _table(cli.out, found)
        if has_more:
            say(f"there are more than these {limit}: pass a larger --limit, or --since, --status or --subject")
    else:
        cli.out.line("no reservation")


def _table(out: Output, found: Sequence[cycles.ReservationSummary]) -> None:
    now = _format.now_ms()
    columns = ["reservation", "status", "amount", "age", "left"]
    rows: list[list[Cell]] = []
    for row in found:
        amount = row.committed if row.committed is not None else row.reserved
        left = _format.duration(row.expires_at_ms - now) if row.status == "ACTIVE" else ""
        cells: list[Cell] = [
            row.reservation_id,
            styled(row.status, _format.STATUS_STYLES.get(row.status, "")),
            _format.amount_of(amount),
            _format.duration(max(0, now - row.created_at_ms)),
            left,
        ]
        about = f"{row.action.kind}/{row.action.name}  {row.scope_path}"
        if out.is_terminal:  # below the id: a terminal is too narrow for more columns
            cells[0] = Text.assemble(styled(row.reservation_id), "\n", styled(about, "dim"))
        else:
            cells.append(about)
        rows.append(cells)
    if not out.is_terminal:
        columns.append("action and scope")
    out.table(columns, rows, right=("amount", "age", "left"))
