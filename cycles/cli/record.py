"""`cycles record`: charge an amount without a reservation."""

from __future__ import annotations

from typing import Any

import click

import cycles
from cycles.cli import _format, _frame as frame
from cycles.cli._frame import Cli
from cycles.cli._options import action_option, amount, subject_option
from cycles.cli._pending import report_pending


@frame.command("record")
@click.argument("actual", metavar="AMOUNT", type=amount)
@action_option
@subject_option
@click.option("--idempotency-key", metavar="K", help="Your own key: the same command charges once.")
def command(
    cli: Cli,
    actual: cycles.Amount,
    action: tuple[str, str],
    subject: dict[str, Any] | None,
    idempotency_key: str | None,
) -> int | None:
    """Charge an amount that was spent without a reservation. It is in the journal until it is confirmed."""
    with cli.client(journal=True) as client:
        result = client.record(actual, action=action, subject=subject, idempotency_key=idempotency_key)
        if not result.raw:
            return report_pending(cli, client, actual)
    charged = result.charged if result.charged is not None else actual
    cli.out.result(result.to_dict(), f"charged {_format.amount_of(charged)} as event {result.event_id}")
    return None
