"""Canonical JSON (RFC 8785, JCS): the bytes that evidence is hashed and signed over.

Two documents with the same canonical bytes have the same hash. So everything that could give two different documents
the same bytes is an error: what strict JSON rejects, strings that are not Unicode, numbers that a double cannot hold.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from cycles._evidence.strict_json import StrictJsonError, read_strict

_EXACT: Final = 2**53  # every integer up to it is a double, so its digits are its canonical form
_INT64: Final = 2**63
_MAX_DIGITS: Final = 21  # ECMAScript writes numbers below 1e21 without an exponent


class LossyNumberError(StrictJsonError):
    """A number of the document is another number in its canonical form."""


def read_exact(document: bytes | str) -> Any:
    """Return the JSON value in `document`, whose canonical bytes represent this document only.

    A number without a fraction is an int, in any notation: ``1.0`` and ``1`` are the same document.

    Raises:
        StrictJsonError: if the document is not strict JSON, or has a string that is not Unicode.
        LossyNumberError: if it is strict JSON, but a number changes in the canonical form.
    """
    lossy: list[str] = []

    def number(literal: str) -> int | float:
        value = _exact(literal)
        if value is None:
            lossy.append(literal)
        return value or 0

    return _copied(read_strict(document, parse_int=number, parse_float=number), lossy)


def copy_exact(value: Any) -> Any:
    """Return a copy of a parsed JSON value, checked as `read_exact` checks a document.

    A parsed value has no literals, so only its integers can still be tested for loss.

    Raises:
        StrictJsonError, LossyNumberError: as `read_exact`.
    """
    return _copied(value, [])


def canonical(value: Any) -> bytes:
    """Return the canonical bytes of a value that `read_exact` or `copy_exact` returned.

    Raises:
        StrictJsonError: if the value is nested too deeply.
    """
    try:
        return _text(value).encode()
    except RecursionError:
        raise StrictJsonError("the value is nested too deeply") from None


def number_text(value: float) -> str:
    """Return a number as ECMAScript writes a double: the shortest digits that are read back as the same double."""
    if isinstance(value, int) and -_EXACT <= value <= _EXACT:
        return str(value)
    double = float(value)
    if double == 0:
        return "0"
    _, numbers, exponent = Decimal(repr(abs(double))).as_tuple()
    assert isinstance(exponent, int)  # only infinities and NaN have another one
    written = "".join(map(str, numbers))
    digits = written.rstrip("0")
    point = len(written) + exponent  # digits before the decimal point
    sign = "-" if double < 0 else ""
    if len(digits) <= point <= _MAX_DIGITS:
        return sign + digits.ljust(point, "0")
    if 0 < point <= _MAX_DIGITS:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1:+d}"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return number_text(value)
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    members = sorted(value.items(), key=lambda member: str(member[0]).encode("utf-16-be"))
    return "{" + ",".join(f"{_text(name)}:{_text(item)}" for name, item in members) + "}"


def _exact(literal: str) -> int | float | None:
    """Return the number that a literal represents, or None if its canonical form is another one."""
    double = float(literal)
    try:
        if not math.isfinite(double) or Decimal(literal) != Decimal(number_text(double)):
            return None
    except InvalidOperation:  # an exponent beyond what Decimal holds
        return None
    return int(literal) if literal.removeprefix("-").isdigit() else _integral(double)


def _integral(double: float) -> int | float:
    """Return an int if the double is one of 64 bits: 1.0 and 1 are the same JSON number."""
    return int(Decimal(repr(double))) if double.is_integer() and abs(double) < _INT64 else double


def _copied(value: Any, lossy: list[str]) -> Any:
    try:
        copied = _copy(value, lossy)
    except RecursionError:
        raise StrictJsonError("the value is nested too deeply") from None
    if lossy:
        raise LossyNumberError(f"the number {lossy[0][:60]} is another number in canonical form")
    return copied


def _copy(value: Any, lossy: list[str]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _unicode(value)
    if isinstance(value, int):
        return _whole(int(value), lossy)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise StrictJsonError(f"{value!r:.80} is not JSON")
        return _integral(float(value))
    if isinstance(value, Mapping):
        return {_name(name): _copy(item, lossy) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item, lossy) for item in value]
    raise StrictJsonError(f"a {type(value).__name__} is not JSON")


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise StrictJsonError(f"the member name {name!r:.80} is not a string")
    return _unicode(name)


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise StrictJsonError("a string has half of a surrogate pair") from None
    return str.__str__(text)


def _whole(value: int, lossy: list[str]) -> int:
    try:
        exact = Decimal(value) == Decimal(number_text(value))
    except OverflowError:
        exact = False
    if not exact:
        lossy.append(str(value)[:60])
    return value
