"""How `cycles top` looks: on a terminal, and as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from attrs import field, frozen
from rich.console import Group, RenderableType
from rich.text import Text

import cycles
from cycles.cli import _format
from cycles.cli._output import Cell, Output, styled
from cycles.embedded.forecast import Forecast, forecast_text
from cycles.journal import InspectedRecord

SpendRates: TypeAlias = dict[tuple[str, str], float]

_BUDGETS: Final = ("budget", "unit", "spent", "per minute", "reserved", "left", "")
_LIVE: Final = ("live", "amount", "left", "action", "scope")
_SETTLED: Final = ("settled", "charged", "ago", "action", "scope")
_PENDING: Final = ("pending", "amount", "state", "reservation")
_ID: Final = 8  # characters of an id that the view shows
_CHROME: Final = 3  # lines of a section that are no rows: heading, rule, blank line
_RIGHT: Final = ("spent", "per minute", "reserved", "left", "amount", "charged", "ago")
_DAY_MS: Final = 86_400_000
_LEAST_MS: Final = 5_000  # a rate of less time would jump
_RATE_MS: Final = 60_000  # the rate is that of the last minute


@frozen
class Snapshot:
    """What one interval shows. `error` is set if the server did not respond; the rest is that of the last interval."""

    at_ms: int
    balances: list[cycles.Balance] = field(factory=list)
    active: list[cycles.ReservationSummary] = field(factory=list)
    settled: list[cycles.ReservationSummary] = field(factory=list)
    records: list[InspectedRecord] = field(factory=list)
    error: str | None = None
    forecast: list[Forecast] = field(factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of one interval."""
        return {
            "at_ms": self.at_ms,
            "balances": [balance.to_dict() for balance in self.balances],
            "forecast": [forecast.to_dict() for forecast in self.forecast],
            "reservations": [row.to_dict() for row in (*self.active, *self.settled)],
            "records": [record.to_dict() for record in self.records],
        }


class Rates:
    """Calculates how much is spent per minute, from the views of the last minute."""

    def __init__(self) -> None:
        self._seen: list[tuple[int, dict[tuple[str, str], int]]] = []

    def after(self, snapshot: Snapshot) -> SpendRates:
        """Return the rates by scope and unit after one more view."""
        spent = {
            (balance.scope_path, balance.remaining.unit): balance.spent.amount if balance.spent else 0
            for balance in snapshot.balances
        }
        if snapshot.error is None:
            self._seen = [item for item in self._seen if snapshot.at_ms - item[0] <= _RATE_MS]
            self._seen.append((snapshot.at_ms, spent))
        first_ms, first = self._seen[0] if self._seen else (snapshot.at_ms, spent)
        minutes = (snapshot.at_ms - first_ms) / 60_000
        is_known = snapshot.at_ms - first_ms >= _LEAST_MS
        return {key: (spent[key] - first.get(key, spent[key])) / minutes if is_known else 0.0 for key in spent}


def draw(out: Output, snapshot: Snapshot, rates: SpendRates, *, height: int) -> RenderableType:
    """Return the view for a terminal of so many lines."""
    now = styled(f"{_format.moment(snapshot.at_ms)}   q exits", "dim")
    parts: list[RenderableType] = [styled(snapshot.error, "bold red") if snapshot.error else now, Text("")]
    sections = [
        (_BUDGETS, _budgets(snapshot, rates, colour=True)),
        (_LIVE, _live(snapshot)),
        (_SETTLED, _settled(snapshot)),
        (_PENDING, _pending(snapshot.records)),
    ]
    shown = [(columns, rows) for columns, rows in sections if rows]
    rooms = share_lines([len(rows) for _, rows in shown], height - len(parts) - _CHROME * len(shown))
    for (columns, rows), max_rows in zip(shown, rooms, strict=True):
        visible = rows if len(rows) <= max_rows else rows[: max(1, max_rows - 1)]
        parts.append(out.as_table(columns, visible, right=_RIGHT, wrap=False))
        if len(visible) < len(rows):
            parts.append(styled(f"... and {len(rows) - len(visible)} more", "dim"))
        parts.append(Text(""))
    return Group(*parts)


def share_lines(wanted: Sequence[int], lines: int) -> list[int]:
    """Share lines fairly: a section that wants few gets them, the others share what is left; each gets at least 2."""
    shares = [0] * len(wanted)
    waiting = sorted(range(len(wanted)), key=lambda index: wanted[index])
    for position, index in enumerate(waiting):
        shares[index] = max(2, min(wanted[index], lines // (len(waiting) - position)))
        lines -= shares[index]
    return shares


def print_tables(out: Output, snapshot: Snapshot, rates: SpendRates) -> None:
    """Print one view as plain tables."""
    out.line(_format.moment(snapshot.at_ms))
    for columns, rows in (
        (_BUDGETS, _budgets(snapshot, rates, colour=False)),
        (_LIVE, _live(snapshot)),
        (_SETTLED, _settled(snapshot)),
        (_PENDING, _pending(snapshot.records)),
    ):
        if rows:
            out.line()
            out.table(columns, rows, right=_RIGHT)


def _budgets(snapshot: Snapshot, rates: SpendRates, *, colour: bool) -> list[list[Cell]]:
    forecasts = {(each.scope, each.unit): each.exhausted_at_ms for each in snapshot.forecast}
    return [
        [
            "  " * balance.scope_path.count("/") + balance.scope,
            _format.unit_of(balance.remaining),
            _format.number_of(balance.spent),
            _rate(rates.get((balance.scope_path, balance.remaining.unit), 0.0), balance.remaining.unit),
            _format.number_of(balance.reserved),
            _format.number_of(balance.remaining),
            _bar(balance, forecasts.get((balance.scope_path, balance.remaining.unit)), snapshot.at_ms, colour=colour),
        ]
        for balance in snapshot.balances
    ]


def _bar(balance: cycles.Balance, exhausted_at_ms: int | None, now_ms: int, *, colour: bool) -> Text:
    bar = _format.bar(balance, colour=colour)
    if exhausted_at_ms is None:
        return bar
    text = forecast_text(exhausted_at_ms, with_day=exhausted_at_ms - now_ms >= _DAY_MS)
    return bar.append(f"  {text}", "yellow")


def _rate(per_minute: float, unit: str) -> str:
    return _format.number_of(cycles.SignedAmount(unit, round(per_minute))) if per_minute else "-"


def _live(snapshot: Snapshot) -> list[list[Cell]]:
    return [
        [
            row.reservation_id[:_ID],
            _format.amount_of(row.reserved),
            _left(row.expires_at_ms - snapshot.at_ms),
            f"{row.action.kind}/{row.action.name}",
            row.scope_path,
        ]
        for row in snapshot.active
    ]


def _left(ms: int) -> Text:
    return styled(_format.duration(ms), "red" if ms < 10_000 else "")


def _settled(snapshot: Snapshot) -> list[list[Cell]]:
    return [
        [
            row.reservation_id[:_ID],
            _format.amount_of(row.committed),
            _format.duration(max(0, snapshot.at_ms - (row.finalized_at_ms or snapshot.at_ms))),
            f"{row.action.kind}/{row.action.name}",
            row.scope_path,
        ]
        for row in snapshot.settled
    ]


def _pending(records: Sequence[InspectedRecord]) -> list[list[Cell]]:
    return [
        [
            record.id[:_ID],
            _format.amount_of(record.amount),
            styled(record.state, "yellow" if record.state in ("pending", "deferred") else "red"),
            record.reservation_id or record.path,
        ]
        for record in records
    ]
