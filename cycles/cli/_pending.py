"""What `commit` and `record` print if the server has not confirmed the amount."""

from __future__ import annotations

import cycles
from cycles.cli._frame import NO_RESPONSE, TRANSPORT_ERROR, UNSETTLED, Cli
from cycles.cli._output import say


def report_pending(cli: Cli, client: cycles.Cycles, actual: cycles.Amount) -> int:
    """Print that an amount is pending, and return the exit status."""
    if not client.config.journal:
        message = f"no usable response, and the journal is off: {actual} may not be charged; repeat the command"
        cli.out.document({"error": TRANSPORT_ERROR, "message": message}) if cli.out.json else say(f"error: {message}")
        return NO_RESPONSE
    line = f"{actual} is not confirmed yet and in the journal; cycles flush settles it"
    cli.out.result({"status": "PENDING"}, line)
    return UNSETTLED
