"""Money and its units: exact integers, never floats.

An `Amount` is a number of one unit of the protocol: microcents of a dollar, tokens, credits or risk points
(`docs/protocol/amounts-and-subjects.md#units`). Arithmetic and order stay within one unit; mixing units is an error,
never a conversion.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal, InvalidOperation, localcontext
from enum import StrEnum
from typing import Any, Final, Literal, Self

from cycles._errors import InvalidRequestError
from cycles._version import public

INT64_MAX: Final = 2**63 - 1
_INT64_DIGITS: Final = 19
_FLOAT_DIGITS: Final = 15  # a float has 15 to 17 significant digits; the last ones are noise
_MICROCENT: Final = Decimal("1e-8")  # of a dollar
MICROCENTS_PER_USD: Final = 100_000_000


class Unit(StrEnum):
    """The units budgets are kept in."""

    USD_MICROCENTS = "USD_MICROCENTS"
    TOKENS = "TOKENS"
    CREDITS = "CREDITS"
    RISK_POINTS = "RISK_POINTS"


_NOUNS: Final[dict[str, str]] = {Unit.TOKENS: "token", Unit.CREDITS: "credit", Unit.RISK_POINTS: "risk point"}


class UnitsDifferError(InvalidRequestError, TypeError):
    """Two amounts of different units were added, subtracted or ordered."""


class SignedAmount:
    """An amount that may be below zero: what a budget has left once it is overdrawn.

    Attributes:
        unit: One of `Unit`, or a newer unit of the server as plain text.
        amount: Signed 64-bit integer, in that unit.
    """

    __slots__ = ("amount", "unit")
    _minimum = -(2**63)

    unit: str
    amount: int

    def __init__(self, unit: str, amount: int) -> None:
        if type(amount) is not int:
            amount = _integer(amount)
        if not isinstance(unit, str) or not unit:
            raise InvalidRequestError(f"unit must be one of {', '.join(Unit)}, got {unit!r:.80}")
        if not self._minimum <= amount <= INT64_MAX:
            lowest = "must not be negative" if self._minimum == 0 else "must be at least -2**63"
            what = lowest if amount < 0 else "must be a 64-bit integer, at most 2**63 - 1"
            raise InvalidRequestError(f"an amount of {unit} {what}, got {_shown(amount)}")
        _set_unit(self, unit)
        _set_amount(self, amount)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable; make a new one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable; make a new one")

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.unit, self.amount))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SignedAmount):
            return NotImplemented
        return self.unit == other.unit and self.amount == other.amount

    def __hash__(self) -> int:
        return hash((self.unit, self.amount))

    def _same_unit(self, other: SignedAmount, what: str) -> None:
        if self.unit != other.unit:
            raise UnitsDifferError(
                f"cannot {what} {self} and {other}: their units differ; convert one of them yourself"
            )

    def __lt__(self, other: SignedAmount) -> bool:
        if not isinstance(other, SignedAmount):
            return NotImplemented
        self._same_unit(other, "compare")
        return self.amount < other.amount

    def __le__(self, other: SignedAmount) -> bool:
        if not isinstance(other, SignedAmount):
            return NotImplemented
        self._same_unit(other, "compare")
        return self.amount <= other.amount

    def __add__(self, other: SignedAmount) -> Self:
        if not isinstance(other, SignedAmount):
            return NotImplemented
        self._same_unit(other, "add")
        return type(self)(self.unit, self.amount + other.amount)

    def __radd__(self, other: int) -> Self:
        if isinstance(other, int) and other == 0:  # `sum` starts from 0
            return self
        return NotImplemented

    def __sub__(self, other: SignedAmount) -> Self:
        if not isinstance(other, SignedAmount):
            return NotImplemented
        self._same_unit(other, "subtract")
        return type(self)(self.unit, self.amount - other.amount)

    def __mul__(self, times: int) -> Self:
        if isinstance(times, bool) or not isinstance(times, int):
            return NotImplemented
        return type(self)(self.unit, self.amount * times)

    __rmul__ = __mul__

    def __bool__(self) -> bool:
        return self.amount != 0

    def __str__(self) -> str:
        if self.unit == Unit.USD_MICROCENTS:
            whole, fraction = divmod(abs(self.amount), MICROCENTS_PER_USD)
            digits = f"{fraction:08d}".rstrip("0").ljust(2, "0")
            return f"{'-' if self.amount < 0 else ''}${whole}.{digits}"
        noun = _NOUNS.get(self.unit)
        if noun is None:
            return f"{self.amount} {self.unit}"
        return f"{self.amount} {noun if abs(self.amount) == 1 else noun + 's'}"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def to_dict(self) -> dict[str, Any]:
        """The amount as it goes over the wire."""
        # The text of a `Unit` itself: its own `__str__` is Python code, and each body has an amount.
        return {"unit": str.__str__(self.unit), "amount": self.amount}


# Each response has several amounts, and `object.__setattr__` takes as long as all checks of one.
_new: Final = object.__new__
_set_unit: Final = vars(SignedAmount)["unit"].__set__
_set_amount: Final = vars(SignedAmount)["amount"].__set__


class Amount(SignedAmount):
    """An amount of zero or more: what is estimated, reserved, spent. Immutable and hashable.

    Raises:
        InvalidRequestError: (a ValueError) for a fraction, a negative number or more than int64.
    """

    __slots__ = ()
    _minimum = 0

    @classmethod
    def parse(cls, text: str) -> Amount:
        """Read ``"$0.50"``, ``"0.5 USD"``, ``"2500 tokens"``, ``"50000TOKENS"`` or ``"3 USD_MICROCENTS"``.

        Raises:
            InvalidRequestError: if the text is none of these, or not an integer number of the unit.
        """
        match = re.fullmatch(r"\s*(\$?)\s*([-+0-9.,eE_]+?)\s*([A-Za-z][A-Za-z _]*?)?\s*", text)
        if match is None:
            raise InvalidRequestError(
                f"cannot read an amount from {_shown(text)}; write it like '$0.50' or '2500 tokens'"
            )
        dollar, number, word = match.groups()
        if "," in number:
            number = _without_thousands_commas(number, text)
        unit = (word or "").strip().upper().replace(" ", "_")
        if dollar and unit in ("", "USD"):
            return usd(number)
        if not dollar and unit in ("USD", "DOLLAR", "DOLLARS"):
            return usd(number)
        full = _UNIT_NAMES.get(unit)
        if dollar or full is None:
            raise InvalidRequestError(f"{_shown(text)} names no unit; use USD, {', '.join(Unit)}")
        return _whole(full, number, text)


def amount_of(wire: Mapping[str, Any]) -> Amount:
    """Return the amount that `to_dict` or a server wrote."""
    unit, amount = wire["unit"], wire["amount"]
    if type(amount) is not int or not 0 <= amount <= INT64_MAX or not unit or type(unit) is not str:
        return Amount(unit, amount)  # checks again, and raises the error
    made = _new(Amount)  # without a call of `__init__`, which takes as long as all of this: a response has several
    _set_unit(made, unit)
    _set_amount(made, amount)
    return made


def signed_of(wire: Mapping[str, Any]) -> SignedAmount:
    """Return such an amount that may be below zero."""
    return SignedAmount(wire["unit"], wire["amount"])


_UNIT_NAMES: Final = {
    **{unit.value: unit for unit in Unit},
    "TOKEN": Unit.TOKENS,
    "CREDIT": Unit.CREDITS,
    "RISK_POINT": Unit.RISK_POINTS,
    "MICROCENTS": Unit.USD_MICROCENTS,
}


_LONGEST_SHOWN_BITS: Final = 128

# "0,50" is half a dollar in many languages: a comma is accepted only if it can only separate thousands.
_THOUSANDS: Final = re.compile(r"[-+]?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]*)?")


def _without_thousands_commas(number: str, shown: str) -> str:
    if _THOUSANDS.fullmatch(number) is None:
        raise InvalidRequestError(f"{_shown(shown)} has a comma that separates no thousands; write 0.50, 1,000 or 1000")
    return number.replace(",", "")


def _integer(amount: int) -> int:
    """Return the value as an int; integers of other libraries are accepted, floats and booleans are not."""
    if not isinstance(amount, bool):
        try:
            return operator.index(amount)
        except TypeError:
            pass
    raise InvalidRequestError(f"an amount must be an integer, got {_shown(amount)}; round it up or down first")


def _shown(value: object) -> str:
    """Return a value for a message, at most 80 characters. Python prints no integer of many thousand digits."""
    if isinstance(value, int) and value.bit_length() > _LONGEST_SHOWN_BITS:
        return f"an integer of {value.bit_length()} bits"
    return f"{value!r:.80}"


def _whole(unit: Unit, number: str, shown: str) -> Amount:
    try:
        value = Decimal(number)
    except InvalidOperation:
        raise InvalidRequestError(f"{_shown(shown)} is not a number; write it like '0.50' or '2500'") from None
    return Amount(unit, _scaled(value, 0, shown, unit.value))


def _scaled(value: Decimal, places: int, shown: object, smallest: str) -> int:
    """`value` times ten to the power of `places`, which must be a whole int64 at or above zero."""
    if not value.is_finite():
        raise InvalidRequestError(f"{_shown(shown)} is not a finite amount; pass a number")
    if value < 0:
        raise InvalidRequestError(f"{_shown(shown)} is negative; amounts are zero or more")
    if value.adjusted() + places > 19:  # also avoids a number of a billion digits for 1e999999999
        raise InvalidRequestError(f"{_shown(shown)} is too large; an amount is a 64-bit integer, at most 2**63 - 1")
    if value and value.adjusted() + places < 0:  # and 1e-999999999 from being rounded to nothing
        raise InvalidRequestError(f"{_shown(shown)} has a fraction of a {smallest}; round it up or down first")
    with localcontext() as context:
        context.prec = max(40, len(value.as_tuple().digits) + 20)
        scaled = value.scaleb(places)
        whole = scaled.to_integral_value()
        if whole != scaled:
            raise InvalidRequestError(f"{_shown(shown)} has a fraction of a {smallest}; round it up or down first")
    return int(whole)


def usd(value: str | Decimal | int | float, *, rounding: Literal["up"] | None = None) -> Amount:
    """Dollars as microcents (1 USD = 100,000,000).

    A float is rounded to 15 significant digits, which removes its noise, then up to a microcent: 0.1 + 0.2 means $0.30.

    Args:
        value: Dollars.
        rounding: ``"up"`` rounds a str or a Decimal up to a microcent too; by default they must be exact.

    Raises:
        InvalidRequestError: (a ValueError) for a fraction of a microcent in a str or a Decimal, a negative, NaN, or
            more than int64.
    """
    if isinstance(value, bool) or not isinstance(value, str | Decimal | int | float):
        raise InvalidRequestError(f"usd takes a str, Decimal, int or float, got {_shown(value)}")
    try:
        number = Decimal(format(value, f".{_FLOAT_DIGITS}g")) if isinstance(value, float) else Decimal(value)
    except InvalidOperation:
        raise InvalidRequestError(f"{_shown(value)} is not a number of dollars; write it like '0.05'") from None
    if isinstance(value, float) or rounding == "up":
        number = _rounded_up(number)
    return Amount(Unit.USD_MICROCENTS, _scaled(number, 8, value, "microcent"))


def _rounded_up(dollars: Decimal) -> Decimal:
    """Return a positive finite number of dollars rounded up to a microcent; all others unchanged."""
    if not dollars.is_finite() or dollars <= 0 or dollars.adjusted() > _INT64_DIGITS:
        return dollars
    return dollars.quantize(_MICROCENT, rounding=ROUND_CEILING)


def usd_microcents(n: int) -> Amount:
    """`n` microcents of a dollar (100,000,000 make one dollar)."""
    return Amount(Unit.USD_MICROCENTS, n)


def tokens(n: int) -> Amount:
    """`n` model tokens."""
    return Amount(Unit.TOKENS, n)


def credits(n: int) -> Amount:  # noqa: A001 - the protocol's word; the builtin is for interactive shells only
    """`n` credits."""
    return Amount(Unit.CREDITS, n)


def risk_points(n: int) -> Amount:
    """`n` risk points."""
    return Amount(Unit.RISK_POINTS, n)


def to_usd(amount: SignedAmount) -> Decimal:
    """An amount of microcents as dollars, exactly.

    Raises:
        InvalidRequestError: if the amount is not in USD_MICROCENTS.
    """
    if amount.unit != Unit.USD_MICROCENTS:
        raise InvalidRequestError(f"{amount} is not an amount of dollars; pass one in {Unit.USD_MICROCENTS}")
    return Decimal(amount.amount).scaleb(-8)


public(Amount, SignedAmount, Unit, credits, risk_points, to_usd, tokens, usd, usd_microcents)
