"""`cycles top`: budgets, live reservations and pending records, read again and again."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import click
from rich.live import Live

import cycles
from cycles.cli import _frame as frame, _top_view
from cycles.cli._format import now_ms
from cycles.cli._frame import Cli
from cycles.cli._options import Seconds
from cycles.cli._top_view import Snapshot
from cycles.journal import inspect

LIVE: Final = 200  # active reservations that are read; a page of the server
SETTLED: Final = 20  # settled reservations that are read


@frame.command("top")
@click.option("--interval", type=Seconds(0.1, 3600), default=1.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Print one view and exit.")
def command(cli: Cli, interval: float, once: bool) -> None:
    """Watch budgets, spend rate, live reservations and pending records. The key q exits."""
    with cli.client() as client:
        snapshot = _read(client)
        if once or cli.out.json or not cli.out.is_terminal:
            _stream(cli, client, snapshot, None if once else interval)
        else:
            _watch(cli, client, snapshot, interval)


def _stream(cli: Cli, client: cycles.Cycles, snapshot: Snapshot, interval: float | None) -> None:
    rates = _top_view.Rates()
    while True:
        if cli.out.json:
            cli.out.document(snapshot.to_dict())
        else:
            _top_view.print_tables(cli.out, snapshot, rates.after(snapshot))
        if interval is None:
            return
        time.sleep(interval)
        snapshot = _read(client)


def _watch(cli: Cli, client: cycles.Cycles, snapshot: Snapshot, interval: float) -> None:
    rates = _top_view.Rates()
    with _keys() as pressed, Live(console=cli.out.console, screen=True, auto_refresh=False) as live:
        while True:
            height = cli.out.console.size.height
            live.update(_top_view.draw(cli.out, snapshot, rates.after(snapshot), height=height), refresh=True)
            if pressed(interval):
                return
            snapshot = _read_again(client, snapshot)


def _read(client: cycles.Cycles) -> Snapshot:
    active = _newest(client, "ACTIVE", LIVE)
    settled = _newest(client, "COMMITTED", SETTLED)
    return Snapshot(
        at_ms=now_ms(),
        balances=sorted(
            client.balances(include_children=True), key=lambda each: (each.scope_path, each.remaining.unit)
        ),
        active=sorted(active, key=lambda row: row.expires_at_ms),
        settled=sorted(settled, key=lambda row: row.finalized_at_ms or 0, reverse=True),
        records=[record for record in inspect(client.config.journal_dir) if record.state != "rejected"],
    )


def _newest(client: cycles.Cycles, status: str, count: int) -> list[cycles.ReservationSummary]:
    rows = client.reservations(status=status, sort_by="created_at_ms", sort_dir="desc", limit=count)
    return [row for row, _ in zip(rows, range(count), strict=False)]


def _read_again(client: cycles.Cycles, last: Snapshot) -> Snapshot:
    """Read once more; a server that does not respond is shown, and does not end the view."""
    try:
        return _read(client)
    except cycles.CyclesError as error:
        return Snapshot(now_ms(), last.balances, last.active, last.settled, last.records, error=str(error))


def _wait(seconds: float) -> bool:
    time.sleep(seconds)
    return False


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Yield a function that waits some seconds and returns whether `q` was pressed."""
    try:
        import termios
        import tty
    except ImportError:  # Windows
        yield _wait
        return
    if not sys.stdin.isatty():
        yield _wait
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield lambda seconds: _quits(descriptor, seconds)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _quits(descriptor: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        ready, _, _ = select.select([descriptor], [], [], left)
        if ready:
            typed = os.read(descriptor, 64)
            if not typed or b"q" in typed.lower():
                return True
    return False
