"""`cycles top`: budgets, live reservations and pending records, read again and again."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Final

import click
import httpx
from attrs import define, evolve
from rich.live import Live

import cycles
from cycles.cli import _frame as frame, _top_view
from cycles.cli._format import now_ms
from cycles.cli._frame import Cli
from cycles.cli._options import Seconds
from cycles.cli._top_keys import Controls
from cycles.cli._top_view import Snapshot
from cycles.embedded.forecast import PACE_MS, Forecast, Pace
from cycles.journal import inspect

LIVE: Final = 200  # active reservations that are read; a page of the server
PAGE: Final = 200
PACE_ROWS: Final = 5_000  # commits that are read for the forecast
KEYS_S: Final = 0.05  # how long keys are waited for while a read runs
SETTLED: Final = 20  # settled reservations that are read


@frame.command("top")
@click.option("--interval", type=Seconds(0.1, 3600), default=1.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Print one view and exit.")
def command(cli: Cli, interval: float, once: bool) -> None:
    """Watch budgets, spend rate, denials, live reservations and pending records. Arrows scroll, / filters, q exits."""
    clock = ServerClock()
    with (
        httpx.Client(verify=httpx.create_ssl_context(), event_hooks={"response": [clock.note]}) as http,
        cli.client(http_client=http) as plain,
    ):
        client = Watched(plain, clock, http)
        snapshot = _read(client)
        if once or cli.out.json or not cli.out.is_terminal:
            _stream(cli, client, snapshot, None if once else interval)
        else:
            _watch(cli, client, snapshot, interval)


def _stream(cli: Cli, client: Watched, snapshot: Snapshot, interval: float | None) -> None:
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


def _watch(cli: Cli, client: Watched, snapshot: Snapshot, interval: float) -> None:
    rates, controls = _top_view.Rates(), Controls()
    with _keys() as typed, Live(console=cli.out.console, screen=True, auto_refresh=False) as live:
        while True:
            shown, due_s, reading = rates.after(snapshot), time.monotonic() + interval, None
            while reading is None or not reading.is_done:
                width, height = cli.out.console.size
                view = _top_view.draw(cli.out, snapshot, shown, controls, width=width, height=height)
                live.update(view, refresh=True)
                left_s = due_s - time.monotonic()
                if left_s <= 0 and reading is None:
                    reading = _Reading(client, snapshot)
                keys = typed(left_s if left_s > 0 else KEYS_S)
                if keys is not None and controls.take(keys, _top_view.count_rows(snapshot, controls.text)):
                    return
            snapshot = reading.result()


class _Reading:
    """One read in a thread, so that keys work while thousands of budgets are read. Leaving does not wait for it."""

    def __init__(self, client: Watched, last: Snapshot) -> None:
        self._results: queue.SimpleQueue[Snapshot | BaseException] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(client, last), name="cycles-top", daemon=True).start()

    def _read(self, client: Watched, last: Snapshot) -> None:
        try:
            self._results.put(_read_again(client, last))
        except BaseException as error:  # raised by `result`
            self._results.put(error)

    @property
    def is_done(self) -> bool:
        return not self._results.empty()

    def result(self) -> Snapshot:
        """Return what was read. Raises what reading raised."""
        found = self._results.get()
        if isinstance(found, BaseException):
            raise found
        return found


class ServerClock:
    """The time of the server, by the `Date` of its last response; without one, that of this machine."""

    def __init__(self) -> None:
        self._date_ms: int | None = None

    def note(self, response: httpx.Response) -> None:
        """Take note of a response."""
        with contextlib.suppress(ValueError, OverflowError):
            self._date_ms = int(parsedate_to_datetime(response.headers.get("Date", "")).timestamp() * 1000)

    def now_ms(self) -> int:
        """Return the time of the server in milliseconds since the epoch, to the second."""
        return now_ms() if self._date_ms is None else self._date_ms


@define
class Watched:
    """A client, the clock of its server, and whether the server may be the built-in one, which counts denials."""

    client: cycles.Cycles
    clock: ServerClock
    http: httpx.Client
    may_count_denials: bool = True

    def denied(self, roots: Collection[str]) -> dict[str, int] | None:
        """Return how often the built-in server denied calls of each scope below some outermost ones; else None."""
        if not self.may_count_denials:
            return None
        try:
            response = self.http.get(f"{self.client.config.base_url}/dashboard/denials")
            self.may_count_denials = response.status_code == 200
            counts = response.json()["denied"] if self.may_count_denials else {}
            own = {scope: count for scope, count in counts.items() if scope.partition("/")[0] in roots}
            return own if self.may_count_denials else None
        except httpx.HTTPError:
            return None  # the other requests say why
        except (ValueError, KeyError, TypeError, AttributeError):  # of another server
            self.may_count_denials = False
            return None


def _read(watched: Watched) -> Snapshot:
    client = watched.client
    active = _newest(client, "ACTIVE", LIVE)
    settled = _newest(client, "COMMITTED", SETTLED)
    balances = sorted(client.balances(include_children=True), key=lambda each: (each.scope_path, each.remaining.unit))
    return Snapshot(
        at_ms=now_ms(),
        balances=balances,
        forecast=_forecast(watched, balances),
        active=sorted(active, key=lambda row: row.expires_at_ms),
        settled=sorted(settled, key=lambda row: row.finalized_at_ms or 0, reverse=True),
        denied=watched.denied({balance.scope_path.partition("/")[0] for balance in balances}),
        records=[record for record in inspect(client.config.journal_dir) if record.state != "rejected"],
    )


def _forecast(watched: Watched, balances: list[cycles.Balance]) -> list[Forecast]:
    """Return when budgets are used up at the pace of the commits of the last 15 minutes, at most `PACE_ROWS`."""
    server_ms = watched.clock.now_ms()
    pace = Pace(server_ms)
    since = datetime.fromtimestamp((server_ms - PACE_MS) / 1000, UTC)
    rows = watched.client.reservations(status="COMMITTED", finalized_from=since, limit=PAGE)
    for row in islice(rows, PACE_ROWS):
        if row.committed is not None:
            pace.add(row.affected_scopes, row.committed.unit, row.finalized_at_ms, row.committed.amount)
    found = [
        pace.of(
            balance.scope_path,
            balance.remaining.unit,
            balance.remaining.amount,
            balance.spent.amount if balance.spent else 0,
        )
        for balance in balances
    ]
    return [forecast for forecast in found if forecast is not None]


def _newest(client: cycles.Cycles, status: str, count: int) -> list[cycles.ReservationSummary]:
    rows = client.reservations(status=status, sort_by="created_at_ms", sort_dir="desc", limit=count)
    return [row for row, _ in zip(rows, range(count), strict=False)]


def _read_again(client: Watched, last: Snapshot) -> Snapshot:
    """Read once more; a server that does not respond is shown, and does not end the view."""
    try:
        return _read(client)
    except cycles.CyclesError as error:
        return evolve(last, at_ms=now_ms(), error=str(error))


@contextmanager
def _keys() -> Iterator[Callable[[float], bytes | None]]:
    """Yield a function that waits some seconds for keys, and returns them or None. A closed terminal types `q`."""
    try:
        import termios
        import tty
    except ImportError:  # Windows
        yield time.sleep
        return
    if not sys.stdin.isatty():
        yield time.sleep
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield lambda seconds: _typed(descriptor, seconds)
    finally:
        with contextlib.suppress(termios.error):  # it is closed
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _typed(descriptor: int, seconds: float) -> bytes | None:
    ready, _, _ = select.select([descriptor], [], [], seconds)
    return (os.read(descriptor, 64) or b"q") if ready else None
