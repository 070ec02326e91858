"""Check bodies and queries of admin operations: names, types and bounds. The state is checked by the operations."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from urllib.parse import parse_qsl

from cycles._core.amounts import Unit
from cycles._core.messages.schema import Checkers
from cycles._core.subjects import LEVELS
from cycles._core.values.action_kinds import WINDOWS
from cycles.embedded.errors import ApiError
from cycles.embedded.records import Body
from cycles.embedded.validation import decode
from cycles.embedded.webhook_events import timestamp
from cycles_admin_client.protocol import OPERATIONS as OPERATIONS_BY_ID, SCHEMAS

PERMISSIONS: Final = (
    "reservations:create", "reservations:commit", "reservations:release", "reservations:extend", "reservations:list",
    "balances:read", "budgets:read", "budgets:write", "policies:read", "policies:write", "webhooks:read",
    "webhooks:write", "events:read", "admin:read", "admin:write", "action_quotas:read",
)  # fmt: skip
DEFAULT_PERMISSIONS: Final = PERMISSIONS[:6]
OPERATIONS: Final = ("CREDIT", "DEBIT", "RESET", "RESET_SPENT", "REPAY_DEBT")
MAX_PAGE: Final = 100
MAX_SEARCH: Final = 128  # characters
DEFAULT_PAGE: Final = 50

_SEGMENT: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_STRING: Final = {"type": "string"}
_MOST_METADATA: Final = 32  # entries; the document has no limit, the reference server has


@cache
def _checkers() -> Checkers:
    """Return the checkers of request bodies, made when the first one arrives."""
    return Checkers({name: _limited(schema) for name, schema in SCHEMAS.items()}, responses=False)


def _limited(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    members = schema.get("properties", {})
    if "metadata" not in members:
        return schema
    return {**schema, "properties": {**members, "metadata": {**members["metadata"], "maxProperties": _MOST_METADATA}}}


# A body may be absent: freeze and unfreeze have a reason only.
_OPTIONAL: Final = ("freezeBudget", "unfreezeBudget")


def body_of(operation: str, content: bytes) -> Body:
    """Return the checked body of a request; members that are null count as absent.

    Raises:
        ApiError: INVALID_REQUEST, naming the member that is wrong.
    """
    if not content.strip() and operation in _OPTIONAL:
        return {}
    value = decode(content)
    if isinstance(value, dict):
        value = {name: member for name, member in value.items() if member is not None}
    problem = _checkers()[OPERATIONS_BY_ID[operation]["request"]](value, "")
    if problem is None and operation == "resetActionQuotaCounter" and value["window"] not in WINDOWS:
        problem = f"window: must be one of {', '.join(WINDOWS)}, got {value['window']!r:.60}"
    if problem is not None:
        raise ApiError("INVALID_REQUEST", problem.removeprefix(": "))
    unknown = [name for name in value.get("permissions", ()) if name not in PERMISSIONS]
    if unknown:
        raise ApiError(
            "INVALID_REQUEST", f"permissions: unknown permission {unknown[0]!r:.60}; use {', '.join(PERMISSIONS)}"
        )
    body: Body = value
    return body


def scope_of(scope: str, tenant: str | None = None) -> str:
    """Return a scope in its stored form: checked, and in lower case.

    Raises:
        ApiError: INVALID_REQUEST for a wrong scope, or one that does not belong to `tenant`.
    """
    levels = []
    for segment in scope.split("/"):
        level, _, value = segment.partition(":")
        if level not in LEVELS or not _SEGMENT.fullmatch(value):
            raise ApiError("INVALID_REQUEST", f"scope: {segment!r:.80} is not level:id without wildcards")
        levels.append(LEVELS.index(level))
    if levels[0] != 0 or levels != sorted(set(levels)):
        raise ApiError(
            "INVALID_REQUEST", f"scope: {scope!r:.80} must begin with tenant: and keep the order {', '.join(LEVELS)}"
        )
    lower = scope.lower()
    if tenant is not None and lower.partition("/")[0] != f"tenant:{tenant.lower()}":
        raise ApiError("INVALID_REQUEST", f"scope: {scope!r:.80} does not begin with tenant:{tenant}")
    return lower


def place_of(query: Mapping[str, str]) -> tuple[str, str]:
    """Return scope and unit of a query.

    Raises:
        ApiError: INVALID_REQUEST if one is missing, or the unit is unknown.
    """
    for name in ("scope", "unit"):
        if not query.get(name):
            raise ApiError("INVALID_REQUEST", f"the query parameter {name} is missing; send it")
    return query["scope"].lower(), choice(query, "unit", [unit.value for unit in Unit]) or ""


def query_of(target: str) -> dict[str, str]:
    """Return the query of a request target; values may be blank."""
    return dict(parse_qsl(target.partition("?")[2], keep_blank_values=True))


def given(query: Mapping[str, str], *exact: str) -> Mapping[str, str]:
    """Return a list's query without blank values, which count as absent.

    Args:
        query: As it arrived.
        exact: Names whose blank value is no absent one, as on the reference server; `sort_dir` is one everywhere.
    """
    kept = (*exact, "sort_dir")
    return {name: text for name, text in query.items() if text.strip() or name in kept or (name == "limit" and text)}


def choice(query: Mapping[str, str], name: str, values: Sequence[str]) -> str | None:
    """Return a query parameter that has one of some values, or None."""
    value = query.get(name)
    if value is not None and value not in values:
        raise ApiError("INVALID_REQUEST", f"{name}: invalid value {value!r:.60}; use {', '.join(values)}")
    return value


def flag(query: Mapping[str, str], name: str) -> bool | None:
    """Return a query parameter that is true or false, or None."""
    value = choice(query, name, ("true", "false"))
    return None if value is None else value == "true"


def number(query: Mapping[str, str], name: str) -> float | None:
    """Return a query parameter that is a number, or None."""
    if name not in query:
        return None
    try:
        found = float(query[name])
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ApiError("INVALID_REQUEST", f"{name}: invalid value {query[name]!r:.60}; use a number")
    return found


def instant(query: Mapping[str, str], name: str) -> int | None:
    """Return a time as milliseconds since the epoch, or None."""
    text = query.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return int(moment.astimezone(UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        pass
    raise ApiError("INVALID_REQUEST", f"{name}: must be an ISO 8601 time with a zone, got {text[:60]!r}")


def search(query: Mapping[str, str]) -> str:
    """Return the searched text in lower case; it is empty if there is none."""
    text = query.get("search", "")
    if len(text) > MAX_SEARCH:
        raise ApiError("INVALID_REQUEST", f"search: has {len(text)} characters; use at most {MAX_SEARCH}")
    return text.lower()


def instants(query: Mapping[str, str]) -> tuple[str, str]:
    """Return `from` and `to` of a query as timestamps of rows, both inclusive."""
    first, last = (instant(query, name) for name in ("from", "to"))
    return "" if first is None else timestamp(first), "~" if last is None else timestamp(last)


def sort(
    rows: MutableSequence[Any],
    query: Mapping[str, str],
    keys: Sequence[str],
    default: str,
    value: Callable[[Any, str], Any] = lambda row, name: (row.get(name) is not None, row.get(name)),
) -> None:
    """Sort rows by `sort_by` and `sort_dir` of a query, which is descending by default. Equal rows keep their order."""
    by = choice(query, "sort_by", keys) or default
    lower = {name: text.lower() for name, text in query.items() if name == "sort_dir"}
    descending = choice(lower, "sort_dir", ("asc", "desc")) != "asc"
    rows[:] = sorted(rows, key=lambda row: value(row, by), reverse=descending)


def page(name: str, rows: list[Body], key: Callable[[Body], str], query: Mapping[str, str]) -> Body:
    """Return one page of rows. The cursor is the id of the last row; a limit above 100 counts as 100.

    Raises:
        ApiError: INVALID_REQUEST for a limit that is no number, or a cursor that is not an id of these rows.
    """
    wanted = number(query, "limit")
    limit = int(min(max(DEFAULT_PAGE if wanted is None else wanted, 1), MAX_PAGE))
    cursor, start = query.get("cursor"), 0
    if cursor:
        ids = [key(row) for row in rows]
        if cursor not in ids:
            raise ApiError("INVALID_REQUEST", "cursor: is not valid for this list; begin without a cursor")
        start = ids.index(cursor) + 1
    shown = rows[start : start + limit]
    more = len(rows) > start + limit
    return {name: shown, "has_more": more} | ({"next_cursor": key(shown[-1])} if more else {})
