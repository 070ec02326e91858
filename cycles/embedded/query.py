"""Parse the query strings of the two lists: limits, keywords, instants, subject levels, and cursors."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

from cycles._core.subjects import LEVELS
from cycles.embedded.errors import ApiError

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200
# No client needs more, and the parser must not do unbounded work.
MAX_PARAMETERS: Final = 200

# Parameters that are no strings: of repeated ones, the first counts.
_FIRST_COUNTS: Final = ("limit", "include_children")
_FLAGS: Final = ("true", "false", "yes", "no", "on", "off", "1", "0")
_INSTANT: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{0,9}))?(?:[Zz]|([+-])(\d\d):(\d\d)(?::(\d\d))?)", re.ASCII
)
_MAX_OFFSET: Final = timedelta(hours=18)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse(text: str) -> dict[str, str]:
    """Return the parameters of a query string. Repeated ones are joined with a comma, except for `_FIRST_COUNTS`.

    Raises:
        ApiError: INVALID_REQUEST if there are more than 200.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise ApiError("INVALID_REQUEST", f"too many query parameters; send at most {MAX_PARAMETERS}") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found and name not in _FIRST_COUNTS:
            found[name] += f",{value}"
        else:
            found.setdefault(name, value)
    return found


def limit(query: Mapping[str, str]) -> int:
    """Return the maximum number of rows of a page."""
    text = query.get("limit", "").strip()
    if not text:
        return DEFAULT_LIMIT
    if not re.fullmatch(r"[+-]?\d{1,10}", text, re.ASCII) or not 1 <= int(text) <= MAX_LIMIT:
        raise ApiError("INVALID_REQUEST", f"limit must be 1 to {MAX_LIMIT}, got {text[:20]!r}")
    return int(text)


def flag(query: Mapping[str, str], name: str) -> None:
    """Check a boolean parameter that has no effect on this server."""
    if query.get(name, "").strip().lower() not in ("", *_FLAGS):
        raise ApiError("INVALID_REQUEST", f"{name} must be true or false, got {query[name][:40]!r}")


def keyword(query: Mapping[str, str], name: str, keywords: Sequence[str], *, any_case: bool = False) -> str | None:
    """Return a parameter that must be one of `keywords`, or None if it is absent."""
    value = query.get(name)
    if value is None:
        return None
    if any_case:
        value = value.lower()
    if value not in keywords:
        raise ApiError("INVALID_REQUEST", f"unknown {name}: {value[:40]!r}; send {', '.join(keywords)}")
    return value


def levels(query: Mapping[str, str], *, tenant: bool = True) -> dict[str, str]:
    """Return the subject levels of a query."""
    return {level: query[level] for level in LEVELS if level in query and (tenant or level != "tenant")}


def window(query: Mapping[str, str], start: str, end: str) -> tuple[int | None, int | None]:
    """Return two instants as milliseconds since the epoch, both inclusive. A blank one is None."""
    first, last = _instant(query, start), _instant(query, end)
    if first is not None and last is not None and first > last:
        raise ApiError("INVALID_REQUEST", f"{start} is after {end}; send the earlier time as {start}")
    return first, last


def _instant(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "").strip()
    if not text:
        return None
    match = _INSTANT.fullmatch(text)
    try:
        if match is not None:
            return _milliseconds(*match.groups())
    except (ValueError, OverflowError):  # the 30th of February, hour 25, a day after the year 9999
        pass
    raise ApiError("INVALID_REQUEST", f"{name} is not an instant: {text[:40]!r}; send one like 2026-01-31T12:00:00Z")


def _milliseconds(*parts: str | None) -> int:
    year, month, day, hour, minute, second, fraction, sign, *offset = (part or "" for part in parts)
    is_next_day = (hour, minute, second, fraction.strip("0")) == ("24", "00", "00", "")
    if (hour, minute, second) == ("23", "59", "60"):  # a leap second counts as the second before it
        second = "59"
    clock = (0, 0, 0) if is_next_day else (int(hour), int(minute), int(second))
    local = datetime(int(year), int(month), int(day), *clock, tzinfo=UTC) + timedelta(days=is_next_day)
    hours, minutes, seconds = (int(part or 0) for part in offset)
    shift = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if shift > _MAX_OFFSET or max(minutes, seconds) > 59:
        raise ValueError("the offset is out of range")
    since = local - _EPOCH + (shift if sign == "-" else -shift)
    return since // timedelta(milliseconds=1) + int(fraction.ljust(3, "0")[:3])


def seal(*parts: Any) -> str:
    """Return a cursor that contains the parts."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def unseal(cursor: str, parts: int) -> list[Any]:
    """Return the parts of a cursor.

    Raises:
        ApiError: INVALID_REQUEST if this server did not make the cursor.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        found = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or len(found) != parts:
        raise bad_cursor()
    return found


def bad_cursor() -> ApiError:
    """Return the error for a cursor that does not belong to this request."""
    return ApiError("INVALID_REQUEST", "cursor does not belong to this list; omit it to start from the first page")
