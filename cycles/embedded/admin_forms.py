"""Check bodies and queries of admin operations: names, types and bounds. The state is checked by the operations."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cycles._core.action_kinds import WINDOWS
from cycles._core.amounts import Unit
from cycles._core.schema import Checkers
from cycles._core.subjects import LEVELS
from cycles.embedded.errors import ApiError
from cycles.embedded.overage import POLICIES
from cycles.embedded.records import Body

PERMISSIONS: Final = (
    "reservations:create", "reservations:commit", "reservations:release", "reservations:extend", "reservations:list",
    "balances:read", "budgets:read", "budgets:write", "policies:read", "policies:write", "webhooks:read",
    "webhooks:write", "events:read", "admin:read", "admin:write", "action_quotas:read",
)  # fmt: skip
DEFAULT_PERMISSIONS: Final = PERMISSIONS[:6]
OPERATIONS: Final = ("CREDIT", "DEBIT", "RESET", "RESET_SPENT", "REPAY_DEBT")
MAX_PAGE: Final = 100
DEFAULT_PAGE: Final = 50

_SEGMENT: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_STRING: Final = {"type": "string"}
_NAME: Final = {"type": "string", "minLength": 1, "maxLength": 256}
_REASON: Final = {"type": "string", "maxLength": 512}
_TTL: Final = {"type": "integer", "minimum": 1_000, "maximum": 86_400_000}
_METADATA: Final = {"type": "object", "additionalProperties": _STRING, "maxProperties": 32}
_STRINGS: Final = {"type": "array", "items": _STRING}
_AMOUNT: Final = {"$ref": "Amount"}
_UNIT: Final = {"enum": [unit.value for unit in Unit]}
_POLICY: Final = {"enum": list(POLICIES)}
_TIME: Final = {"type": "string", "format": "date-time"}
_TENANT: Final[dict[str, Any]] = {
    "default_commit_overage_policy": _POLICY,
    "default_reservation_ttl_ms": _TTL,
    "max_reservation_ttl_ms": _TTL,
    "max_reservation_extensions": {"type": "integer", "minimum": 0},
    "reservation_expiry_policy": {"enum": ["AUTO_RELEASE", "MANUAL_CLEANUP", "GRACE_ONLY"]},
    "metadata": _METADATA,
}


def _closed(required: Sequence[str] = (), **members: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "additionalProperties": False, "properties": members}


_KEY: Final[dict[str, Any]] = {"name": _NAME, "description": _STRING, "permissions": _STRINGS, "scope_filter": _STRINGS}
_SHAPES: Final[dict[str, Any]] = {
    "Amount": _closed(["unit", "amount"], unit=_UNIT, amount={"type": "integer", "minimum": 0, "format": "int64"}),
    "createTenant": _closed(
        ["tenant_id", "name"],
        tenant_id={"type": "string", "pattern": "^[a-z0-9-]+$", "minLength": 3, "maxLength": 64},
        name=_NAME,
        parent_tenant_id=_STRING,
        **_TENANT,
    ),
    "updateTenant": _closed(name=_NAME, status={"enum": ["ACTIVE", "SUSPENDED", "CLOSED"]}, **_TENANT),
    "createBudget": _closed(
        ["scope", "unit", "allocated"],
        tenant_id=_STRING,
        scope={"type": "string", "minLength": 1},
        unit=_UNIT,
        allocated=_AMOUNT,
        overdraft_limit=_AMOUNT,
        commit_overage_policy=_POLICY,
        rollover_policy={"enum": ["NONE", "CARRY_FORWARD", "CAP_AT_ALLOCATED"]},
        period_start=_TIME,
        period_end=_TIME,
        metadata=_METADATA,
    ),
    "updateBudget": _closed(overdraft_limit=_AMOUNT, commit_overage_policy=_POLICY, metadata=_METADATA),
    "fundBudget": _closed(
        ["operation", "amount"],
        operation={"enum": list(OPERATIONS)},
        amount=_AMOUNT,
        spent=_AMOUNT,
        reason=_REASON,
        idempotency_key={"type": "string", "minLength": 1, "maxLength": 256},
        metadata=_METADATA,
    ),
    "freezeBudget": _closed(reason=_REASON),
    "unfreezeBudget": _closed(reason=_REASON),
    "bulkActionBudgets": _closed(
        ["filter", "action", "idempotency_key"],
        filter=_closed(
            ["tenant_id"],
            tenant_id={"type": "string", "minLength": 1},
            scope_prefix=_STRING,
            unit=_UNIT,
            status={"enum": ["ACTIVE", "FROZEN", "CLOSED"]},
            over_limit={"type": "boolean"},
            has_debt={"type": "boolean"},
            utilization_min={"type": "number"},
            utilization_max={"type": "number"},
            search={"type": "string", "maxLength": 128},
        ),
        action={"enum": list(OPERATIONS)},
        amount=_AMOUNT,
        spent=_AMOUNT,
        reason=_REASON,
        expected_count={"type": "integer", "minimum": 0},
        idempotency_key={"type": "string", "minLength": 1, "maxLength": 128},
    ),
    "createApiKey": _closed(
        ["tenant_id", "name"],
        tenant_id={"type": "string", "minLength": 1},
        expires_at=_TIME,
        metadata=_METADATA,
        **_KEY,
    ),
    "updateApiKey": _closed(metadata=_METADATA, **_KEY),
    "resetActionQuotaCounter": _closed(
        ["scope", "window"],
        window={"enum": list(WINDOWS)},
        reason=_REASON,
        **dict.fromkeys(("tenant_id", "scope", "action_kind", "risk_class", "window_key", "run_id"), _STRING),
    ),
    "validateApiKey": _closed(["key_secret"], key_secret={"type": "string", "minLength": 1}),
}
_CHECKERS: Final = Checkers(_SHAPES, responses=False)
# A body may be absent: freeze and unfreeze have a reason only.
_OPTIONAL: Final = ("freezeBudget", "unfreezeBudget")


def body_of(operation: str, content: bytes) -> Body:
    """Return the checked body of a request; members that are null count as absent.

    Raises:
        ApiError: INVALID_REQUEST, naming the member that is wrong.
    """
    if not content.strip() and operation in _OPTIONAL:
        return {}
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise ApiError("INVALID_REQUEST", "the body is not JSON; send a JSON object") from None
    if isinstance(value, dict):
        value = {name: member for name, member in value.items() if member is not None}
    problem = _CHECKERS[operation](value, "")
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
    return query["scope"].lower(), choice(query, "unit", _UNIT["enum"]) or ""


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
        return float(query[name])
    except ValueError:
        raise ApiError("INVALID_REQUEST", f"{name}: invalid value {query[name]!r:.60}; use a number") from None


def page(name: str, rows: list[Body], key: Callable[[Body], str], query: Mapping[str, str]) -> Body:
    """Return one page of rows. The cursor is the id of the last row; a limit above 100 counts as 100.

    Raises:
        ApiError: INVALID_REQUEST for a limit that is no number, or a cursor that is not an id of these rows.
    """
    limit = int(min(max(number(query, "limit") or DEFAULT_PAGE, 1), MAX_PAGE))
    cursor, start = query.get("cursor"), 0
    if cursor:
        ids = [key(row) for row in rows]
        if cursor not in ids:
            raise ApiError("INVALID_REQUEST", "cursor: is not valid for this list; begin without a cursor")
        start = ids.index(cursor) + 1
    shown = rows[start : start + limit]
    more = len(rows) > start + limit
    return {name: shown, "has_more": more} | ({"next_cursor": key(shown[-1])} if more else {})
