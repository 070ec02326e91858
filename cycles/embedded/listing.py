"""List reservations (filters, order, pages) and balances. Nothing here changes the ledger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from cycles._core.subjects import LEVELS
from cycles.embedded import query as queries
from cycles.embedded.authentication import Caller
from cycles.embedded.errors import ApiError
from cycles.embedded.records import Body, Budget, Reservation
from cycles.embedded.scopes import has_segments, wanted_segments

Query = Mapping[str, str]

STATUSES: Final = ("ACTIVE", "COMMITTED", "RELEASED", "EXPIRED")
_SORTS: Final[dict[str, Callable[[Reservation], int | str]]] = {
    "reservation_id": lambda row: row.reservation_id,
    "tenant": lambda row: row.tenant,
    "scope_path": lambda row: row.scope_path,
    "status": lambda row: row.status,
    "reserved": lambda row: row.reserved,
    "created_at_ms": lambda row: row.created_at_ms,
    "expires_at_ms": lambda row: row.expires_at_ms,
}
_WINDOWS: Final[tuple[tuple[str, str, Callable[[Reservation], int | None]], ...]] = (
    ("from", "to", lambda row: row.created_at_ms),
    ("expires_from", "expires_to", lambda row: row.expires_at_ms),
    ("finalized_from", "finalized_to", lambda row: row.finalized_at_ms),
)


# --- rows -----------------------------------------------------------------------------------------------------------


def row_of(row: Reservation, include: Iterable[str] = ("metadata", "committed_metadata")) -> Body:
    """Return the row of a reservation. Unset members of subject and action are null, as on the reference server."""
    include = frozenset(include)
    shown: Body = {
        "reservation_id": row.reservation_id,
        "status": row.status,
        "idempotency_key": row.idempotency_key,
        "subject": {level: row.subject.get(level) for level in (*LEVELS, "dimensions")},
        "action": {name: row.action.get(name) for name in ("kind", "name", "tags")},
        "reserved": row.amount(row.reserved),
        "created_at_ms": row.created_at_ms,
        "expires_at_ms": row.expires_at_ms,
        "finalized_at_ms": row.finalized_at_ms,
        "scope_path": row.scope_path,
        "affected_scopes": list(row.scopes),
        "committed": None if row.charged is None else row.amount(row.charged),
        "metadata": row.metadata if "metadata" in include else None,
        "committed_metadata": row.committed_metadata if "committed_metadata" in include else None,
    }
    return {name: value for name, value in shown.items() if value is not None}


# --- reservations ---------------------------------------------------------------------------------------------------


@frozen
class _Filter:
    """The filter of a list. Cursors contain its `digest`, so that a cursor works with its own filter only."""

    tenant: str | None
    status: str | None
    idempotency_key: str | None
    segments: frozenset[str]
    windows: tuple[tuple[int | None, int | None], ...]

    @property
    def digest(self) -> str:
        parts = (self.tenant, self.status, self.idempotency_key, sorted(self.segments), self.windows)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]

    def matches(self, row: Reservation) -> bool:
        return (
            row.tenant == self.tenant
            and self.status in (None, row.status)
            and self.idempotency_key in (None, row.idempotency_key)
            and (not self.segments or has_segments(row.scope_path, self.segments))
            and all(_within(at(row), *bounds) for (_, _, at), bounds in zip(_WINDOWS, self.windows, strict=True))
        )


def _within(at: int | None, first: int | None, last: int | None) -> bool:
    if first is None and last is None:
        return True
    return at is not None and (first is None or first <= at) and (last is None or at <= last)


def reservations(rows: Iterable[Reservation], caller: Caller, query: Query) -> Body:
    """Return a page of reservations.

    Raises:
        ApiError: INVALID_REQUEST or FORBIDDEN, in the reference server's order of checks.
    """
    limit = queries.limit(query)
    status = queries.keyword(query, "status", STATUSES)
    sort_by = queries.keyword(query, "sort_by", tuple(_SORTS), any_case=True)
    sort_dir = queries.keyword(query, "sort_dir", ("asc", "desc"), any_case=True)
    windows = tuple(queries.window(query, first, last) for first, last, _ in _WINDOWS)
    tenant = _list_tenant(caller, query)
    segments = wanted_segments(queries.levels(query, tenant=False))
    wanted = _Filter(tenant, status, query.get("idempotency_key"), segments, windows)
    cursor = query.get("cursor", "")
    taken = [row for row in rows if wanted.matches(row)]
    if sort_by or sort_dir or (cursor and not cursor.isdecimal()):
        page = _sorted_page(taken, wanted.digest, sort_by, sort_dir, cursor, limit)
    else:
        page = _page_in_order_of_creation(taken, cursor, limit)
    include = {token.strip().lower() for token in query.get("include", "").split(",")}
    return {"reservations": [row_of(row, include) for row in page.rows], **page.more}


def _list_tenant(caller: Caller, query: Query) -> str:
    requested = query.get("tenant")
    if caller.tenant is None:
        if requested is None or not requested.strip():
            raise ApiError("INVALID_REQUEST", "tenant is missing; send it with the admin key")
        return requested
    _require_own(caller.tenant, requested)
    return caller.tenant if requested is None else requested


def _require_own(tenant: str, requested: str | None) -> None:
    """Raise FORBIDDEN for another tenant. An empty one is allowed and matches nothing."""
    if requested and requested != tenant:
        raise ApiError("FORBIDDEN", "tenant is not the tenant of the API key; omit it, or send a key of that tenant")


@frozen
class _Page:
    """A page of a list. Without a sort, a full page has a cursor even if no row follows, as on the reference server."""

    rows: Sequence[Any]
    next_cursor: str | None

    @property
    def more(self) -> Body:
        return {"has_more": self.next_cursor is not None, "next_cursor": self.next_cursor}


def _page_in_order_of_creation(rows: Sequence[Reservation], cursor: str, limit: int) -> _Page:
    after = int(cursor[:20]) if cursor else 0
    rest = [row for row in rows if row.number > after]
    return _Page(rest[:limit], str(rest[limit - 1].number) if len(rest) >= limit else None)


@frozen
class _Place:
    """The end of a page of a sorted list; the content of its cursor."""

    digest: str
    sort_by: str
    sort_dir: str
    value: int | str
    reservation_id: str

    @classmethod
    def of(cls, cursor: str) -> _Place:
        place = cls(*queries.unseal(cursor, 5))
        strings = (place.digest, place.sort_by, place.sort_dir, place.reservation_id)
        numeric = place.sort_by in ("reserved", "created_at_ms", "expires_at_ms")
        if not all(isinstance(part, str) for part in strings) or type(place.value) is not (int if numeric else str):
            raise queries.bad_cursor()
        return place

    def comes_before(self, value: Any, reservation_id: str) -> bool:
        if value == self.value:
            return reservation_id > self.reservation_id  # equal values are ordered by id, in both directions
        return bool(value < self.value if self.sort_dir == "desc" else value > self.value)


def _sorted_page(
    rows: Sequence[Reservation], digest: str, sort_by: str | None, sort_dir: str | None, cursor: str, limit: int
) -> _Page:
    place = _Place.of(cursor) if cursor else None
    if place is not None and not sort_by and not sort_dir:
        sort_by, sort_dir = place.sort_by, place.sort_dir
    sort_by, sort_dir = sort_by or "created_at_ms", sort_dir or "desc"
    if place is not None and (place.digest, place.sort_by, place.sort_dir) != (digest, sort_by, sort_dir):
        raise queries.bad_cursor()
    if sort_by not in _SORTS:
        raise queries.bad_cursor()
    at = _SORTS[sort_by]
    ordered = sorted(rows, key=lambda row: row.reservation_id)
    ordered.sort(key=at, reverse=sort_dir == "desc")  # all integers or all strings
    if place is not None:
        ordered = [row for row in ordered if place.comes_before(at(row), row.reservation_id)]
    if len(ordered) <= limit:
        return _Page(ordered, None)
    last = ordered[limit - 1]
    return _Page(ordered[:limit], queries.seal(digest, sort_by, sort_dir, at(last), last.reservation_id))


# --- balances -------------------------------------------------------------------------------------------------------


def balances(budgets: Iterable[Budget], caller: Caller, query: Query) -> Body:
    """Return a page of balances: every budget, in any unit, of the caller's tenant with the given segments.

    Raises:
        ApiError: INVALID_REQUEST or FORBIDDEN, in the reference server's order of checks.
    """
    limit = queries.limit(query)
    queries.flag(query, "include_children")
    levels = queries.levels(query)
    if not levels:
        raise ApiError("INVALID_REQUEST", f"the filter is empty; send at least one of {', '.join(LEVELS)}")
    tenant = caller.tenant or ""
    _require_own(tenant, levels.get("tenant"))
    wanted = wanted_segments({"tenant": tenant}) | wanted_segments(levels)
    after = queries.unseal(query["cursor"], 2) if query.get("cursor") else ["", ""]
    if not all(isinstance(part, str) for part in after):
        raise queries.bad_cursor()
    found = sorted(
        (budget for budget in budgets if [*budget.key] > after and has_segments(budget.scope, wanted)),
        key=lambda budget: budget.key,
    )
    page = _Page(found[:limit], queries.seal(*found[limit - 1].key) if len(found) >= limit else None)
    return {"balances": [budget.balance() for budget in page.rows], **page.more}
