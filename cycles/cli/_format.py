"""Amounts, times and bars as people read them."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime
from typing import Final

from rich.text import Text

import cycles

_STEPS: Final = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000))
BAR_WIDTH: Final = 12
_LEAST: Final = 10_000  # microcents of $0.0001
STATUS_STYLES: Final = {"ACTIVE": "yellow", "COMMITTED": "green", "RELEASED": "dim", "EXPIRED": "red"}


def now_ms() -> int:
    """Return the time on this machine in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def duration(ms: int) -> str:
    """Return a duration in its two largest units, like ``2 h 05 m``."""
    if ms < 0:
        return f"-{duration(-ms)}"
    for (unit, size), (smaller, small) in itertools.pairwise(_STEPS):
        if ms >= size:
            return f"{ms // size} {unit} {ms % size // small:02d} {smaller}"
    return f"{ms // 1000} s"


def moment(ms: int) -> str:
    """Return a time as ISO text in UTC, to the second."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"


def amount_of(value: cycles.SignedAmount | None) -> str:
    """Return an amount with separators and its unit, or a dash for none."""
    if value is None or value.unit == cycles.Unit.USD_MICROCENTS:
        return number_of(value)
    return f"{number_of(value)} {value.unit}"


def unit_of(value: cycles.SignedAmount) -> str:
    """Return the unit of an amount, for a column beside `number_of`."""
    return "USD" if value.unit == cycles.Unit.USD_MICROCENTS else str(value.unit)


def number_of(value: cycles.SignedAmount | None) -> str:
    """Return an amount with separators, dollars with their sign and others without their unit; a dash for none."""
    if value is None:
        return "-"
    if value.unit == cycles.Unit.USD_MICROCENTS:
        dollars = f"{abs(cycles.to_usd(value)):,f}".rstrip("0")
        whole, _, cents = dollars.partition(".")
        return f"{'-' if value.amount < 0 else ''}${whole}.{cents.ljust(2, '0')}"
    return f"{value.amount:,}"


def short_of(value: cycles.SignedAmount | None) -> str:
    """Return an amount as `number_of` does, with at most four digits after the point."""
    if value is None or value.unit != cycles.Unit.USD_MICROCENTS or value.amount == 0:
        return number_of(value)
    if abs(value.amount) < _LEAST:
        return "<$0.0001" if value.amount > 0 else "-<$0.0001"
    return number_of(cycles.SignedAmount(value.unit, round(value.amount / _LEAST) * _LEAST))


def used(balance: cycles.Balance) -> float:
    """Return the used share of a budget: what is spent, reserved and owed. Without an allocated amount it is 0."""
    if balance.allocated is None:
        return 0.0
    if balance.allocated.amount <= 0:
        return 1.0 if balance.remaining.amount <= 0 else 0.0
    return 1 - balance.remaining.amount / balance.allocated.amount


def bar(balance: cycles.Balance, *, colour: bool, width: int = BAR_WIDTH) -> Text:
    """Return a bar of one budget: spent, then reserved, then what is left; without an allocated amount, nothing."""
    if balance.allocated is None or balance.allocated.amount <= 0:
        return Text("")
    whole = balance.allocated.amount
    spent = (balance.spent.amount if balance.spent else 0) + (balance.debt.amount if balance.debt else 0)
    reserved = balance.reserved.amount if balance.reserved else 0
    first = _cells(spent, whole, width)
    second = min(_cells(reserved, whole, width), width - first)
    rest = width - first - second
    style = "red" if spent >= whole else "green"
    text = Text()
    text.append(("\u2588" if colour else "#") * first, style)
    text.append(("\u2593" if colour else "=") * second, "yellow")
    text.append(("\u2591" if colour else ".") * rest, "dim")
    return text


def share(part: int, whole: int, *, colour: bool) -> Text:
    """Return a bar that shows a part of a whole."""
    return Text(("\u2588" if colour else "#") * _cells(part, whole, BAR_WIDTH), "green")


def _cells(part: int, whole: int, width: int) -> int:
    """Return how many cells a part fills; anything above zero fills at least one."""
    if part <= 0:
        return 0
    return max(1, min(width, part * width // whole))
