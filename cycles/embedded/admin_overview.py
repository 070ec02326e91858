"""What a dashboard shows first: the overview of the whole server, and what the caller's own key may do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cycles.embedded import admin_forms as forms
from cycles.embedded.admin_state import AdminCall, AdminState, Result
from cycles.embedded.records import ApiKey, Body, Budget
from cycles.embedded.webhook_events import timestamp
from cycles.embedded.webhook_subscriptions import Subscription

_WINDOW_MS: Final = 3_600_000
_MOST_SHOWN: Final = 10
# Capability -> permissions of which one suffices; a tenant's key never has the others.
_OF_TENANTS: Final = {
    "view_budgets": ("budgets:read", "admin:read"),
    "view_events": ("events:read", "admin:read"),
    "view_webhooks": ("webhooks:read", "admin:read"),
    "view_policies": ("policies:read", "admin:read"),
    "view_reservations": ("reservations:list", "admin:read"),
    "manage_budgets": ("budgets:write", "admin:write"),
    "manage_policies": ("policies:write", "admin:write"),
    "manage_webhooks": ("webhooks:write", "admin:write"),
    "manage_reservations": ("reservations:release", "admin:write"),
}
_OF_OPERATORS: Final = (
    "view_overview", "view_audit", "view_tenants", "view_api_keys", "manage_tenants", "manage_api_keys",
)  # fmt: skip


def introspect(state: AdminState, secret: str | None) -> Result:
    """Return what a key may do. None is the admin key."""
    if secret is None:
        everything = dict.fromkeys((*_OF_TENANTS, *_OF_OPERATORS), True)
        body = {"authenticated": True, "auth_type": "admin", "permissions": ["*"], "capabilities": everything}
        return Result(200, body)
    key = state.tables.api_keys[(secret,)]
    permissions = _permissions(state, key)
    allowed = {name: not set(enough).isdisjoint(permissions) for name, enough in _OF_TENANTS.items()}
    body = {
        "authenticated": True,
        "auth_type": "tenant",
        "permissions": permissions,
        "capabilities": allowed | dict.fromkeys(_OF_OPERATORS, False),
        "tenant_id": key.tenant or "",
    }
    scopes = state.info("api_key", key.key_id).get("scope_filter")
    return Result(200, body if scopes is None else body | {"scope_filter": scopes}, key.tenant)


def _permissions(state: AdminState, key: ApiKey) -> list[str]:
    """Return the permissions of a key. One that a test made has none stored, and may do everything."""
    found = state.permissions_of(key.secret)
    return list(forms.PERMISSIONS) if found is None else found


def validate(state: AdminState, call: AdminCall) -> Result:
    """Return whether an API key works, and why not."""
    key = state.tables.api_keys.get((call.form["key_secret"],))
    if key is None:
        return Result(200, {"valid": False, "tenant_id": "", "reason": "KEY_NOT_FOUND"})
    shown = state.key_body(key)
    body = {"valid": True, "tenant_id": key.tenant or "", "key_id": shown["key_id"], "expires_at": shown["expires_at"]}
    body["permissions"] = _permissions(state, key)
    if "scope_filter" in shown:
        body["scope_filter"] = shown["scope_filter"]
    reason = _why_invalid(state, key, call.now_ms)
    return Result(200, body if reason is None else body | {"valid": False, "reason": reason}, key.tenant)


def _why_invalid(state: AdminState, key: ApiKey, now_ms: int) -> str | None:
    if key.status != "ACTIVE":
        return f"KEY_{key.status}"
    if key.expires_at_ms is not None and key.expires_at_ms <= now_ms:
        return "KEY_EXPIRED"
    status = state.tenant_record(key.tenant or "").status
    return None if status == "ACTIVE" else f"TENANT_{status}"


def overview(
    state: AdminState, call: AdminCall, subscriptions: Sequence[Subscription], events: Sequence[Mapping[str, Any]]
) -> Result:
    """Return the numbers of the whole server, and what needs a look.

    Args:
        subscriptions: All webhook subscriptions.
        events: All events, newest first.
    """
    budgets = list(state.tables.budgets.values())
    since = timestamp(call.now_ms - _WINDOW_MS)
    recent = [event for event in events if event["timestamp"] >= since]
    tenants = Counter(str(state.tenant_record(tenant).status) for tenant in state.tenant_ids())
    failing = [each for each in subscriptions if each.consecutive_failures]
    shown: Body = {
        "as_of": call.now,
        "event_window_seconds": _WINDOW_MS // 1000,
        "tenant_counts": _counts(tenants, "active", "suspended", "closed"),
        "budget_counts": _budget_counts(budgets),
        "over_limit_scopes": [_owing(budget) for budget in budgets if budget.is_over_limit][:_MOST_SHOWN],
        "debt_scopes": [_owing(budget) for budget in budgets if budget.debt > 0][:_MOST_SHOWN],
        "webhook_counts": {
            **_counts(Counter(each.status for each in subscriptions), "active", "disabled"),
            "with_failures": len(failing),
        },
        "failing_webhooks": [_failing(each) for each in failing][:_MOST_SHOWN],
        "event_counts": {
            "total_recent": len(recent),
            "by_category": dict(Counter(str(event["category"]) for event in recent)),
        },
        "recent_denials": _of_type(recent, "reservation.denied"),
        "recent_expiries": _of_type(recent, "reservation.expired"),
    }
    reasons = Counter(str(each["data"]["reason_code"]) for each in recent if each["event_type"] == "reservation.denied")
    return Result(200, shown | {"recent_denials_by_reason": dict(reasons)} if reasons else shown)


def _counts(statuses: Counter[str], *names: str) -> dict[str, int]:
    return {"total": statuses.total()} | {name: statuses[name.upper()] for name in names}


def _budget_counts(budgets: Sequence[Budget]) -> Body:
    return {
        **_counts(Counter(budget.status or "ACTIVE" for budget in budgets), "active", "frozen", "closed"),
        "over_limit": sum(budget.is_over_limit for budget in budgets),
        "with_debt": sum(budget.debt > 0 for budget in budgets),
        "by_unit": dict(Counter(budget.unit for budget in budgets)),
    }


def _owing(budget: Budget) -> Body:
    return {
        "scope": budget.scope,
        "unit": budget.unit,
        "debt": budget.debt,
        "overdraft_limit": budget.overdraft_limit,
    }


def _failing(subscription: Subscription) -> Body:
    names = ("subscription_id", "url", "consecutive_failures", "last_failure_at")
    return {name: getattr(subscription, name) for name in names if getattr(subscription, name) is not None}


def _of_type(events: Sequence[Mapping[str, Any]], name: str) -> list[Body]:
    return [dict(event) for event in events if event["event_type"] == name][:_MOST_SHOWN]
