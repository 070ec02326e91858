"""Query strings of the two lists: limits, words, instants, the levels of a subject, and cursors."""

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
# Nobody needs more, and a parser without a bound is an invitation.
MAX_PARAMETERS: Final = 200

_INSTANT: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d)(?::(\d\d))?)", re.ASCII
)
_MAX_OFFSET: Final = timedelta(hours=18)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse(text: str) -> dict[str, str]:
    """The parameters of a query string; of repeated ones the first counts, but `include` collects all.

    Raises:
        ApiError: INVALID_REQUEST if there are absurdly many.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise ApiError("INVALID_REQUEST", f"more than {MAX_PARAMETERS} query parameters") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name == "include" and name in found:
            found[name] += f",{value}"
        else:
            found.setdefault(name, value)
    return found


def limit(query: Mapping[str, str]) -> int:
    """How many rows a page may have."""
    text = query.get("limit", "").strip()
    if not text:
        return DEFAULT_LIMIT
    if not re.fullmatch(r"[+-]?\d{1,10}", text, re.ASCII) or not 1 <= int(text) <= MAX_LIMIT:
        raise ApiError("INVALID_REQUEST", f"limit: must be a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def flag(query: Mapping[str, str], name: str) -> None:
    """Check a boolean parameter that says nothing to this server."""
    if query.get(name, "").strip().lower() not in ("", "true", "false"):
        raise ApiError("INVALID_REQUEST", f"{name}: must be true or false")


def word(query: Mapping[str, str], name: str, words: Sequence[str], *, any_case: bool = False) -> str | None:
    """A parameter that is one of some words, or None if it is not there."""
    value = query.get(name)
    if value is None:
        return None
    if any_case:
        value = value.lower()
    if value not in words:
        raise ApiError("INVALID_REQUEST", f"{name}: must be one of {', '.join(words)}")
    return value


def levels(query: Mapping[str, str], *, tenant: bool = True) -> dict[str, str]:
    """The subject levels a query names."""
    return {level: query[level] for level in LEVELS if level in query and (tenant or level != "tenant")}


def window(query: Mapping[str, str], start: str, end: str) -> tuple[int | None, int | None]:
    """A pair of instants as milliseconds since the epoch, both inclusive; blank means unset."""
    first, last = _instant(query, start), _instant(query, end)
    if first is not None and last is not None and first > last:
        raise ApiError("INVALID_REQUEST", f"{start}: must not be after {end}")
    return first, last


def _instant(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "").strip()
    if not text:
        return None
    match = _INSTANT.fullmatch(text)
    try:
        if match is not None:
            return _milliseconds(*match.groups())
    except ValueError:  # the 30th of February, hour 25
        pass
    raise ApiError("INVALID_REQUEST", f"{name}: must be an instant like 2026-01-31T12:00:00Z, with its zone")


def _milliseconds(*parts: str | None) -> int:
    year, month, day, hour, minute, second, fraction, sign, *offset = parts
    local = datetime(*(int(part or 0) for part in (year, month, day, hour, minute, second)), tzinfo=UTC)  # type: ignore[arg-type, misc]
    hours, minutes, seconds = (int(part or 0) for part in offset)
    shift = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if shift > _MAX_OFFSET or max(minutes, seconds) > 59:
        raise ValueError("no such offset")
    since = local - _EPOCH + (shift if sign == "-" else -shift)
    return since // timedelta(milliseconds=1) + int((fraction or "").ljust(3, "0")[:3])


def seal(*parts: Any) -> str:
    """A cursor that holds the parts."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def unseal(cursor: str, parts: int) -> list[Any]:
    """The parts of a cursor.

    Raises:
        ApiError: INVALID_REQUEST if it is none of ours.
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
    """What a cursor that does not belong to this request is answered."""
    return ApiError("INVALID_REQUEST", "cursor: is not one of this list; leave it out to start anew")
