"""`cycles check`: what the server would decide now, and why."""

from __future__ import annotations

from typing import Any

import click

import cycles
from cycles.cli import _format, _frame as frame
from cycles.cli._frame import DONE, REJECTED, Cli
from cycles.cli._options import action_option, amount, subject_option
from cycles.cli._output import styled


@frame.command("check")
@click.argument("estimate", metavar="AMOUNT", type=amount)
@action_option
@subject_option
def command(cli: Cli, estimate: cycles.Amount, action: tuple[str, str], subject: dict[str, Any] | None) -> int:
    """Show what the server would decide now. Reserves nothing; exits 1 if the action would be denied."""
    with cli.client() as client:
        found = client.decide(estimate, action=action, subject=subject)
    if cli.out.json:
        cli.out.document(found.to_dict())
    else:
        caps = found.caps.to_dict() if found.caps is not None else {}
        retry = found.retry_after_ms
        cli.out.pairs(
            [
                ("decision", styled(found.decision, "green" if found.allowed else "bold red")),
                ("reason", found.denial_code),
                ("retry after", None if retry is None else _format.duration(retry)),
                *((f"cap {name}", str(value)) for name, value in caps.items()),
                ("scopes", ", ".join(found.affected_scopes) if found.affected_scopes else None),
            ]
        )
    return DONE if found.allowed else REJECTED
