"""One day of one model on the bill, exact amounts, and names of models that the bill and the ledger share. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, Final

from attrs import evolve, field, frozen

MICROCENTS_PER_DOLLAR: Final = 100_000_000
MICROCENTS_PER_CENT: Final = 1_000_000
_DATED: Final = re.compile(r"(?:-\d{4}-\d{2}-\d{2}|[-@]\d{8})$")
_LARGEST_EXPONENT: Final = 12  # of an amount: more is no bill, and would fill the memory
_SMALLEST_EXPONENT: Final = -60
STANDARD_TIERS: Final = (None, "", "default", "standard", "auto")


class ReportError(ValueError):
    """A body is no report of costs; the message says what is wrong with it."""


@frozen(kw_only=True)
class BillRow:
    """What one model cost on one day.

    Attributes:
        day: The day in UTC, like ``2026-11-24``.
        model: The model as the bill names it, without its date; what the row is for if it has no model.
        amount: Microcents, exact.
        calls: How many calls it had; None if the report does not say.
        listed: Microcents before a discount; None if the report does not say.
        tiers: The service tiers, without the standard one.
        is_model: Whether the row has a model.
    """

    day: str
    model: str
    amount: Fraction
    calls: int | None = None
    listed: Fraction | None = None
    tiers: frozenset[str] = field(default=frozenset())
    is_model: bool = True


def merged(rows: Iterable[BillRow]) -> list[BillRow]:
    """Return one row for each day and model, with the sums of its parts."""
    found: dict[tuple[str, str, bool], BillRow] = {}
    for row in rows:
        key = row.day, row.model, row.is_model
        before = found.get(key)
        found[key] = row if before is None else together(before, row)
    return list(found.values())


def together(one: BillRow, other: BillRow) -> BillRow:
    """Return the sum of two parts of a row. A list price of only one of them is not that of the sum."""
    calls = one.calls if other.calls is None else other.calls if one.calls is None else one.calls + other.calls
    listed = None if one.listed is None or other.listed is None else one.listed + other.listed
    amount, tiers = one.amount + other.amount, one.tiers | other.tiers
    return evolve(one, amount=amount, calls=calls, listed=listed, tiers=tiers)


def model_name(name: str) -> str:
    """Return the name of a model without the date at its end and without ``models/``, as both sides are compared."""
    return _DATED.sub("", name.removeprefix("models/"))


def exact(value: Any, microcents: int) -> Fraction:
    """Return an amount of a report in microcents.

    Args:
        value: A decimal string, or a number that was parsed as a decimal.
        microcents: How many its unit has.

    Raises:
        ReportError: it is no amount.
    """
    try:
        number = Decimal(value) if isinstance(value, str | int | Decimal) and not isinstance(value, bool) else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite():
        raise ReportError(f"{value!r:.80} is no amount")
    if not number:
        return Fraction(0)
    exponent = number.as_tuple().exponent
    if number.adjusted() > _LARGEST_EXPONENT or not isinstance(exponent, int) or exponent < _SMALLEST_EXPONENT:
        raise ReportError(f"{value!r:.80} is no amount")
    return Fraction(number) * microcents


def count(value: Any) -> int | None:
    """Return a number of calls; None if the report has none.

    Raises:
        ReportError: it is no count.
    """
    if value is None:
        return None
    if isinstance(value, Decimal) and value == value.to_integral_value():
        value = int(value)
    if type(value) is not int or value < 0:
        raise ReportError(f"{value!r:.80} is no number of calls")
    return value


def tiers(*names: Any) -> frozenset[str]:
    """Return the tiers that are not the standard one."""
    return frozenset(str(name)[:40] for name in names if name not in STANDARD_TIERS)


def text(value: Any) -> str | None:
    """Return a string of a report, bounded; None if there is none."""
    return value[:256] if isinstance(value, str) and value else None
