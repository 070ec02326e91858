"""`cycles report`: what the calls of a kept ledger have cost, and what a budget would have denied of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

import cycles
from cycles.cli import _format, _frame as frame
from cycles.cli._frame import Cli
from cycles.cli._options import moment
from cycles.cli._proxying import budget_of_report


@frame.command("report", settings=False)
@click.option("--keep", metavar="NAME", default="measure", show_default=True, help="The ledger of these runs.")
@click.option(
    "--budget", metavar="AMOUNT", multiple=True, help="What it would have denied: 5USD, or 5USD/day for each day."
)
@click.option("--timezone", metavar="NAME", help="The zone of a window like 5USD/day, as IANA names it; or UTC.")
@click.option("--since", type=moment, metavar="AGE|TIME", help="Calls since then: 2h, 7d or a time.")
def command(cli: Cli, keep: str, budget: tuple[str, ...], timezone: str | None, since: datetime | None) -> None:
    """Show what the calls of cycles measure have cost, which budget fits them, and what a budget would have denied."""
    amount, window = budget_of_report(budget, timezone)
    from cycles.proxy._kept import reservations_of
    from cycles.proxy._report import measured

    since_ms = 0 if since is None else int(since.timestamp() * 1000)
    found = measured(reservations_of(keep), None if amount is None else amount.unit, since_ms)
    document = found.document(amount, window)
    if cli.out.json:
        cli.out.document(document)
    else:
        _print(cli, keep, document, amount, window)


def _print(
    cli: Cli, keep: str, document: dict[str, Any], budget: cycles.Amount | None, window: cycles.Window | None
) -> None:
    runs, denied, proposed = document["runs"], document["would_deny"], document["proposed"]
    cli.out.line(
        f"{keep}: {_count(document['calls'], 'call')} in {_count(runs['count'], 'run')}, {_shown(document['spent'])}"
    )
    models = [
        (model, str(each["calls"]), *(_shown(each[name]) for name in ("spent", "p50", "p95", "max")))
        for model, each in document["models"].items()
    ]
    columns = ("model", "calls", "spent", "p50", "p95", "max")
    if models:
        cli.out.table(columns, models, right=columns[1:])
    agents = [(path, str(each["calls"]), _shown(each["spent"])) for path, each in document["agents"].items()]
    if agents:
        cli.out.table(("agent", "calls", "spent"), agents, right=("calls", "spent"))
    if document["unpriced"]:
        cli.out.line(f"{_count(document['unpriced'], 'call')} without a price, or with a part without one")
    if denied is not None:
        each = "" if window is None else f" for each {window.period}"
        first = "" if denied["first_call"] is None else f", first call {denied['first_call']}"
        what = f"{_format.amount_of(budget)}{each} would deny {_count(denied['calls'], 'call')}{first}"
        cli.out.line(f"{what}, and spend {_shown(denied['spent'])}")
    if proposed is not None:
        typical = "run" if window is None else window.period
        cli.out.line(f"proposed for each {typical}: {_shown(proposed)}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _shown(amount: dict[str, Any]) -> str:
    return _format.amount_of(cycles.Amount(**amount))
