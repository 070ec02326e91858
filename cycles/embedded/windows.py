"""Budgets that begin again: windows of the calendar in a time zone, and when they end. No I/O but reading the zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, Literal, TypeAlias, get_args

from attrs import frozen

from cycles._core.amounts import Amount
from cycles._errors import InvalidRequestError
from cycles._version import public

Period: TypeAlias = Literal["minute", "hour", "day", "week", "month"]
PERIODS: Final[tuple[str, ...]] = get_args(Period)
UTC_NAME: Final = "UTC"


@frozen
class Window:
    """A budget that begins again with each window; made by `window`.

    Attributes:
        amount: What may be spent in one window.
        period: ``"minute"``, ``"hour"``, ``"day"``, ``"week"`` (from Monday) or ``"month"``.
        timezone: The zone of the calendar, as IANA names it.
    """

    amount: Amount
    period: str
    timezone: str


def window(amount: Amount, period: Period, *, timezone: str = UTC_NAME) -> Window:
    """Return a budget that begins again at each edge of the calendar, for the embedded server.

    The spent amount starts at 0 there. Active reservations continue, and count in the new window.

    Args:
        amount: What may be spent in one window.
        period: ``"minute"``, ``"hour"``, ``"day"``, ``"week"`` (from Monday) or ``"month"``.
        timezone: The zone of the calendar, as IANA names it, like ``"Europe/Berlin"``.

    Raises:
        InvalidRequestError: (a ValueError) if it is no amount, no such period or no zone that this machine knows.
    """
    if not isinstance(amount, Amount):
        raise InvalidRequestError(f"amount must be an amount such as cycles.usd(5), got {amount!r:.80}")
    if period not in PERIODS:
        raise InvalidRequestError(f"a window is one of {', '.join(PERIODS)}, got {period!r:.80}")
    zone_of(timezone)
    return Window(amount, period, timezone)


def zone_of(name: str) -> tzinfo:
    """Return the zone of a name.

    Raises:
        InvalidRequestError: this machine knows no such zone.
    """
    if name == UTC_NAME:
        return UTC  # also on a machine without zones
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError, TypeError, AttributeError):
        raise InvalidRequestError(
            f"timezone {name!r:.80} is not known here; write an IANA name like Europe/Berlin, or UTC"
        ) from None


def end_of(period: str, timezone: str, now_ms: int) -> int:
    """Return when the window ends that contains a time, in milliseconds since the epoch.

    Days, weeks and months begin at midnight of the zone, so a day may have 23 or 25 hours.
    """
    zone = zone_of(timezone)
    now = datetime.fromtimestamp(now_ms // 1000, UTC).astimezone(zone)
    if period in ("minute", "hour"):
        into_s = now.second if period == "minute" else 60 * now.minute + now.second
        size_s = 60 if period == "minute" else 3_600
        return 1000 * (now_ms // 1000 - into_s + size_s)
    first = now.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    if period == "day":
        after = first + timedelta(days=1)
    elif period == "week":
        after = first + timedelta(days=7 - now.weekday())
    else:
        after = (first.replace(day=1) + timedelta(days=32)).replace(day=1)
    return int(after.replace(tzinfo=zone).timestamp() * 1000)


WORDS: Final = {
    "minute": "this minute",
    "hour": "this hour",
    "day": "today",
    "week": "this week",
    "month": "this month",
}
"""The current window, in words."""


def edge_text(period: str, timezone: str, ends_ms: int) -> str:
    """Return the end of a window for people, like ``00:00 UTC``; of a week and a month with its day."""
    at = datetime.fromtimestamp(ends_ms / 1000, zone_of(timezone))
    return f"{at:%Y-%m-%d %H:%M} {timezone}" if period in ("week", "month") else f"{at:%H:%M} {timezone}"


public(Window, window)
