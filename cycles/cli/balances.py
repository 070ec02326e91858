"""`cycles balances`: the budgets of a subject."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click
from rich.live import Live

import cycles
from cycles.cli import _format, _frame as frame
from cycles.cli._frame import Cli
from cycles.cli._options import subject_option
from cycles.cli._output import Cell, Output, styled

RIGHT = ("spent", "reserved", "debt", "left", "of")
WATCH_S = 2.0  # seconds between two reads of --watch


@frame.command("balances")
@subject_option
@click.option("--tree", is_flag=True, help="Also show the budgets below the subject, as a tree.")
@click.option("--watch", is_flag=True, help="Read again every 2 seconds until Ctrl-C.")
def command(cli: Cli, subject: dict[str, Any] | None, tree: bool, watch: bool) -> None:
    """Show the budgets of a subject: allocated, spent, reserved, debt and what is left."""
    with cli.client() as client:
        if watch:
            _watch(cli.out, client, subject, tree)
        else:
            _show(cli.out, _read(client, subject, tree), tree)


def _read(client: cycles.Cycles, subject: dict[str, Any] | None, tree: bool) -> list[cycles.Balance]:
    found = list(client.balances(subject=subject, include_children=tree))
    return sorted(found, key=lambda balance: (balance.scope_path.split("/"), balance.remaining.unit))


def _show(out: Output, balances: Sequence[cycles.Balance], tree: bool) -> None:
    columns, rows = _table(balances, tree=tree, colour=out.is_terminal)
    document = {"balances": [balance.to_dict() for balance in balances]}
    out.listing(document, columns, rows, none="no budget for this subject", right=RIGHT)


def _watch(out: Output, client: cycles.Cycles, subject: dict[str, Any] | None, tree: bool) -> None:
    if out.json or not out.is_terminal:
        while True:
            _show(out, _read(client, subject, tree), tree)
            time.sleep(WATCH_S)
    with Live(console=out.console, auto_refresh=False, screen=False) as live:
        while True:
            columns, rows = _table(_read(client, subject, tree), tree=tree, colour=True)
            live.update(out.as_table(columns, rows, right=RIGHT), refresh=True)
            time.sleep(WATCH_S)


def _table(balances: Sequence[cycles.Balance], *, tree: bool, colour: bool) -> tuple[list[str], list[list[Cell]]]:
    columns = ["scope", "unit", "spent", "reserved", "debt", "left", "of", ""]
    rows = [_row(balance, tree=tree, colour=colour) for balance in balances]
    if not any(balance.debt for balance in balances):
        columns.remove("debt")
        rows = [[*row[:4], *row[5:]] for row in rows]
    return columns, rows


def _row(balance: cycles.Balance, *, tree: bool, colour: bool) -> list[Cell]:
    depth = balance.scope_path.count("/")
    scope = "  " * depth + balance.scope if tree else balance.scope_path
    left = _format.number_of(balance.remaining)
    over = balance.is_over_limit or balance.remaining.amount <= 0
    return [
        scope,
        _format.unit_of(balance.remaining),
        _format.number_of(balance.spent),
        _format.number_of(balance.reserved),
        _format.number_of(balance.debt) if balance.debt else "",
        styled(left, "red" if over else ""),
        _format.number_of(balance.allocated),
        _format.bar(balance, colour=colour),
    ]
