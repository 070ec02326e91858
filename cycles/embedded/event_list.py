"""The lists of events: filtered, sorted, and in pages, for the operator and for a tenant's key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from cycles.embedded import admin_forms as forms
from cycles.embedded.errors import ApiError
from cycles.embedded.records import Body
from cycles.embedded.webhook_events import is_event_type

OF_TENANTS: Final = ("budget", "reservation", "tenant")  # the categories that a tenant may ask for
_SORTS: Final = ("timestamp", "event_type", "category", "scope", "tenant_id")
_EXACT: Final = ("event_type", "category", "correlation_id", "tenant_id", "trace_id", "request_id")
_NO_ORDER: Final = ("search", "sort_by", "sort_dir")  # the reference server ignores them for a tenant's key


def of_operator(events: Sequence[Body], query: Mapping[str, str]) -> Body:
    """Return one page of the events that a query chooses. `search` looks at the scope and the correlation id."""
    query = forms.given(query, "scope", *(name for name in _EXACT if name != "correlation_id"))
    search, (first, last) = forms.search(query), forms.instants(query)
    chosen = [
        event
        for event in events
        if all(query.get(name) in (None, event.get(name)) for name in _EXACT)
        and ("scope" not in query or event.get("scope", "").startswith(query["scope"] or "tenant:"))
        and first <= event["timestamp"] <= last
        and any(search in event.get(name, "").lower() for name in ("scope", "correlation_id"))
    ]
    forms.sort(chosen, query, _SORTS, "timestamp")
    return forms.page("events", chosen, lambda row: str(row["event_id"]), query)


def of_tenant(events: Sequence[Body], query: Mapping[str, str], tenant: str) -> Body:
    """Return one page of the events of a tenant.

    Raises:
        ApiError: INVALID_REQUEST: the query names a type or a category that only the operator may ask for.
    """
    event_type = query.get("event_type", "tenant.created")
    if not is_event_type(event_type):
        raise ApiError("INVALID_REQUEST", f"event_type: unknown type {event_type!r:.60}; see docs/webhooks.md")
    for name, value in (("event_type", event_type), ("category", query.get("category", "tenant"))):
        if value.partition(".")[0] not in OF_TENANTS:
            raise ApiError("INVALID_REQUEST", f"{name}: {value!r:.60} needs the admin key; use {', '.join(OF_TENANTS)}")
    own = {name: value for name, value in query.items() if name not in _NO_ORDER}
    return of_operator(events, {**own, "tenant_id": tenant})
