"""`cycles spend`: what was committed, by agent, action, model or day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import click

import cycles
from cycles.billing._items import is_chunk, items_of
from cycles.cli import _format, _frame as frame
from cycles.cli._frame import Cli
from cycles.cli._options import moment
from cycles.cli._output import Cell, say

BY: Final = ("agent", "action", "model", "workspace", "scope", "day")
NONE: Final = "(none)"
MODEL_CALLS: Final = "llm."
"""The kinds of actions whose name is a model."""
_NOT_ITEMISED: Final = "calculated from committed reservations; events and pooled calls are not itemised"

_ITEMISED: Final = "calculated from committed reservations of kind llm.*; events are not itemised"


@frame.command("spend")
@click.option("--by", type=click.Choice(BY), default="agent", show_default=True)
@click.option("--since", type=moment, metavar="AGE|TIME", help="Settled since then: 2h, 7d (the default) or a time.")
def command(cli: Cli, by: str, since: datetime | None) -> None:
    """Show what was spent, by agent, action, model, workspace, scope or day (in UTC).

    Agents of the same name in two workspaces are two rows.
    """
    since = since or datetime.now(UTC) - timedelta(days=7)
    with cli.client() as client:
        sums, pooled = _sums(client, by, since)
    order = sorted(sums.items(), key=lambda item: item[0] if by == "day" else (item[0][1], -item[1][0]))
    if cli.out.json:
        found = [
            {"key": key, "unit": unit, "amount": amount, "reservations": count}
            for (key, unit), (amount, count) in order
        ]
        cli.out.document({"spend": found})
        return
    if order:
        rows = list(_rows(order, colour=cli.out.is_terminal))
        cli.out.table((by, "spent", "reservations", ""), rows, right=("spent", "reservations"))
    else:
        cli.out.line(f"no reservation was committed since {since:%Y-%m-%d %H:%M %Z}")
    say(_ITEMISED if by == "model" else _NOT_ITEMISED)
    by_cost = sorted(pooled.items(), key=lambda item: (item[0][1], -item[1], item[0]))
    names = [f"{name} {_format.amount_of(cycles.Amount(unit, amount))}" for (name, unit), amount in by_cost]
    if names:
        say(f"of it pooled: {', '.join(names)}")


def _sums(
    client: cycles.Cycles, by: str, since: datetime
) -> tuple[dict[tuple[str, str], list[int]], dict[tuple[str, str], int]]:
    """Return amounts and numbers of reservations by key and unit, and the amounts of pooled guards by their names."""
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    pooled: dict[tuple[str, str], int] = defaultdict(int)
    for row in client.reservations(
        status="COMMITTED", finalized_from=since, include=("metadata", "committed_metadata")
    ):
        if row.committed is None:
            continue
        for key, amount in _parts(row, by):
            total = sums[key, row.committed.unit]
            total[0] += amount
            total[1] += 1
        for item in items_of(row) if is_chunk(row) else ():
            pooled[item.name, row.committed.unit] += item.amount
    return (_without_workspaces(sums) if by == "agent" else sums), pooled


def _rows(order: list[tuple[tuple[str, str], list[int]]], *, colour: bool) -> Iterator[tuple[Cell, ...]]:
    largest = {unit: max(amount for (_, other), (amount, _) in order if other == unit) for (_, unit), _ in order}
    for (key, unit), (amount, count) in order:
        spent = _format.amount_of(cycles.Amount(unit, amount))
        yield key, spent, str(count), _format.share(amount, largest[unit], colour=colour)


def _parts(row: cycles.ReservationSummary, by: str) -> Iterator[tuple[str, int]]:
    """Yield the keys of a committed reservation with their amounts: several only for the models of a chunk."""
    assert row.committed is not None
    if by != "model":
        yield _key(row, by), row.committed.amount
    elif row.action.kind.startswith(MODEL_CALLS):
        models: dict[str, int] = defaultdict(int)
        for item in items_of(row):
            models[item.name] += item.amount
        yield from models.items()


def _key(row: cycles.ReservationSummary, by: str) -> str:
    if by == "action":
        return f"{row.action.kind}/{row.action.name}"
    if by == "day":
        return _format.moment(row.finalized_at_ms or row.created_at_ms)[:10]
    if by == "scope":
        return row.scope_path
    workspace = row.subject.workspace or NONE
    return workspace if by == "workspace" else f"{workspace}/{row.subject.agent or NONE}"


def _without_workspaces(sums: dict[tuple[str, str], list[int]]) -> dict[tuple[str, str], list[int]]:
    """Return sums by agent, with the workspace only before names that are in several."""
    places: dict[str, set[str]] = defaultdict(set)
    for key, _ in sums:
        places[key.partition("/")[2]].add(key)
    return {
        (agent if len(places[agent := key.partition("/")[2]]) == 1 else key, unit): total
        for (key, unit), total in sums.items()
    }
