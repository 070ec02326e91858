"""How `cycles top` looks: on a terminal, and as plain text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from attrs import field, frozen
from rich.console import Group, RenderableType
from rich.text import Text

import cycles
from cycles.cli import _format
from cycles.cli._output import Cell, Output, styled
from cycles.cli._top_keys import Controls
from cycles.embedded.forecast import Forecast, forecast_text
from cycles.journal import InspectedRecord

SpendRates: TypeAlias = dict[tuple[str, str], float]

_BUDGETS: Final = ("budget", "spent", "per minute", "reserved", "left", "", "used", "forecast")
_DENIED: Final = ("denied", "times")
_LIVE: Final = ("live", "amount", "left", "action", "scope")
_SETTLED: Final = ("settled", "charged", "ago", "action", "scope")
_PENDING: Final = ("pending", "amount", "state", "reservation")
_ID: Final = 8  # characters of an id that the view shows
_CHROME: Final = 3  # lines of a section that are no rows: heading, rule, blank line
_LEAST_ROWS: Final = 3  # of a section that is not the first
_FIGURES: Final = 53  # columns of a budget beside its name and its forecast
_WIDE: Final = 120  # columns from which the forecast has its words
_NARROW_FORECAST: Final = 8
_SMALL: Final = 79  # columns below which a budget has only its name, what is left and the used share
_SMALL_COLUMNS: Final = (0, 4, 6)
_SMALL_FIGURES: Final = 25
_WIDE_FORECAST: Final = 30
_RIGHT: Final = ("spent", "per minute", "reserved", "left", "used", "times", "amount", "charged", "ago")
_DAY_MS: Final = 86_400_000
_LEAST_MS: Final = 5_000  # a rate of less time would jump
_RATE_MS: Final = 60_000  # the rate is that of the last minute


@frozen
class Snapshot:
    """What one interval shows. `error` is set if the server did not respond; the rest is that of the last interval.

    Attributes:
        denied: How often the built-in server denied calls of each scope since it began; None from another server.
    """

    at_ms: int
    balances: list[cycles.Balance] = field(factory=list)
    active: list[cycles.ReservationSummary] = field(factory=list)
    settled: list[cycles.ReservationSummary] = field(factory=list)
    records: list[InspectedRecord] = field(factory=list)
    error: str | None = None
    forecast: list[Forecast] = field(factory=list)
    denied: dict[str, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of one interval."""
        return {
            "at_ms": self.at_ms,
            "balances": [balance.to_dict() for balance in self.balances],
            "denied": self.denied,
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


@frozen
class _Section:
    """One table of the view: its rows are made when they are shown."""

    columns: tuple[str, ...]
    items: Sequence[Any]
    row: Callable[[Any], list[Cell]]


def _sections(snapshot: Snapshot, rates: SpendRates, text: str, width: int, *, colour: bool) -> list[_Section]:
    """Return the sections that have rows with a text."""
    forecasts = {(each.scope, each.unit): each.exhausted_at_ms for each in snapshot.forecast}
    balances = sorted((each for each in snapshot.balances if text in each.scope_path), key=_most_used_first)
    denied = sorted((snapshot.denied or {}).items(), key=lambda item: -item[1])
    live = [row for row in snapshot.active if _has(row, text)]
    settled = [row for row in snapshot.settled if _has(row, text)]
    records = [record for record in snapshot.records if text in f"{record.id} {record.reservation_id}".lower()]

    bar = _format.BAR_WIDTH if width >= _WIDE else _format.BAR_WIDTH // 2

    def budget(balance: cycles.Balance) -> list[Cell]:
        place = (balance.scope_path, balance.remaining.unit)
        figures = _figures(balance, rates.get(place, 0.0), bar, colour=colour)
        exhausted_at_ms = forecasts.get(place)
        late = exhausted_at_ms is not None and exhausted_at_ms - snapshot.at_ms >= _DAY_MS
        forecast = "" if exhausted_at_ms is None else forecast_text(exhausted_at_ms, with_day=late)
        if width < _WIDE:
            forecast = forecast.removeprefix("used up at ").removesuffix(" at this pace")
        room = width - _FIGURES - bar - (_WIDE_FORECAST if width >= _WIDE else _NARROW_FORECAST)
        room = width - _SMALL_FIGURES if width < _SMALL else room
        cells = [_end_of(balance.scope_path, room), *figures, styled(forecast, "yellow")]
        return [cells[index] for index in kept]

    kept = _SMALL_COLUMNS if width < _SMALL else range(len(_BUDGETS))
    names = _BUDGETS if width >= _WIDE else (*_BUDGETS[:-1], "used up")
    columns = tuple(names[index] for index in kept)
    sections = [
        _Section(columns, balances, budget),
        _Section(_DENIED, [item for item in denied if text in item[0]], lambda item: [item[0], f"{item[1]:,}"]),
        _Section(_LIVE, live, lambda row: _live(row, snapshot.at_ms)),
        _Section(_SETTLED, settled, lambda row: _settled(row, snapshot.at_ms)),
        _Section(_PENDING, records, _pending),
    ]
    return [section for section in sections if section.items]


def _most_used_first(balance: cycles.Balance) -> tuple[float, str, str]:
    return (-_format.used(balance), balance.scope_path, balance.remaining.unit)


def _has(row: cycles.ReservationSummary, text: str) -> bool:
    return text in f"{row.scope_path} {row.action.kind}/{row.action.name} {row.reservation_id}".lower()


def _end_of(path: str, room: int) -> str:
    room = max(room, 12)
    return path if len(path) <= room else f"\u2026{path[1 - room :]}"


def count_rows(snapshot: Snapshot, text: str) -> int:
    """Return how many rows a view with this text has, for its end."""
    return sum(len(section.items) for section in _sections(snapshot, {}, text, _WIDE, colour=False))


def draw(
    out: Output, snapshot: Snapshot, rates: SpendRates, controls: Controls, *, width: int, height: int
) -> RenderableType:
    """Return the view for a terminal of so many columns and lines."""
    keys = "arrows scroll, / filters, q exits"
    if controls.is_typing or controls.text:
        keys = f"/{controls.text}{'_ (Enter: done)' if controls.is_typing else '  (Esc: all)'}"
    now = styled(f"{_format.moment(snapshot.at_ms)}   {keys}", "dim")
    parts: list[RenderableType] = [styled(snapshot.error, "bold red") if snapshot.error else now, Text("")]
    above, shown = min(controls.offset, max(0, count_rows(snapshot, controls.text) - 1)), []
    for section in _sections(snapshot, rates, controls.text, width, colour=True):
        hidden = min(above, len(section.items))
        above -= hidden
        if hidden < len(section.items):
            shown.append((hidden, section))
    if not shown:
        parts.append(Text("nothing to show" if not controls.text else f"nothing contains {controls.text!r}"))
    wanted = [len(section.items) - hidden for hidden, section in shown]
    wanted[1:] = [min(each, _LEAST_ROWS) for each in wanted[1:]]  # the first section gets what the others leave
    rooms = share_lines(wanted, height - len(parts) - _CHROME * len(shown))
    for (hidden, section), max_rows in zip(shown, rooms, strict=True):
        rest = section.items[hidden:]
        visible = rest if len(rest) <= max_rows and not hidden else rest[: max(1, max_rows - 1)]
        rows = [section.row(item) for item in visible]
        parts.append(out.as_table(section.columns, rows, right=_RIGHT, wrap=False))
        below = len(rest) - len(visible)
        if below or hidden:
            sums = [f"{below:,} more below"] * bool(below) + [f"{hidden:,} above"] * bool(hidden)
            parts.append(styled(f"... {', '.join(sums)}", "dim"))
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
    for section in _sections(snapshot, rates, "", 1_000, colour=False):
        out.line()
        out.table(section.columns, [section.row(item) for item in section.items], right=_RIGHT)


def _figures(balance: cycles.Balance, per_minute: float, width: int, *, colour: bool) -> list[Cell]:
    used = _format.used(balance)
    is_used_up = balance.allocated is not None and balance.remaining.amount <= 0
    style = "bold reverse red" if is_used_up else "red" if used > 0.95 else "yellow" if used > 0.8 else ""
    share = "-" if balance.allocated is None else "used up" if is_used_up else f"{used:.0%}"
    unit = "" if balance.remaining.unit == cycles.Unit.USD_MICROCENTS else f" {balance.remaining.unit}"
    return [
        _format.short_of(balance.spent),
        _rate(per_minute, balance.remaining.unit),
        _format.short_of(balance.reserved),
        f"{_format.short_of(balance.remaining)}{unit}",
        _format.bar(balance, colour=colour, width=width),
        styled(share, style if colour else ""),
    ]


def _rate(per_minute: float, unit: str) -> str:
    return _format.short_of(cycles.SignedAmount(unit, round(per_minute))) if per_minute else "-"


def _short(value: cycles.SignedAmount | None) -> str:
    unit = "" if value is None or value.unit == cycles.Unit.USD_MICROCENTS else f" {value.unit}"
    return f"{_format.short_of(value)}{unit}"


def _live(row: cycles.ReservationSummary, at_ms: int) -> list[Cell]:
    left_ms = row.expires_at_ms - at_ms
    left = styled(_format.duration(left_ms), "red" if left_ms < 10_000 else "")
    return [
        row.reservation_id[:_ID],
        _short(row.reserved),
        left,
        f"{row.action.kind}/{row.action.name}",
        row.scope_path,
    ]


def _settled(row: cycles.ReservationSummary, at_ms: int) -> list[Cell]:
    return [
        row.reservation_id[:_ID],
        _short(row.committed),
        _format.duration(max(0, at_ms - (row.finalized_at_ms or at_ms))),
        f"{row.action.kind}/{row.action.name}",
        row.scope_path,
    ]


def _pending(record: InspectedRecord) -> list[Cell]:
    return [
        record.id[:_ID],
        _short(record.amount),
        styled(record.state, "yellow" if record.state in ("pending", "sent", "deferred") else "red"),
        record.reservation_id or record.path,
    ]
