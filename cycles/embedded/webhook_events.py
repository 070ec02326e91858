"""The events of this server, made from changes of its records. See `docs/webhooks.md`.

The reference servers send more types. Here are those of the runtime operations, of what `server.ledger` changes, and of
API keys and policies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from attrs import frozen

from cycles.embedded.records import (
    AdminInfo,
    ApiKey,
    Body,
    Budget,
    BudgetWindow,
    Record,
    Reservation,
    StoredResponse,
    Tenant,
)

Change: TypeAlias = tuple[Record | None, Record | None]
"""A record before and after a change; None if there is none."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TYPES: Final = {
    "budget": "created updated funded debited reset reset_spent debt_repaid frozen unfrozen closed threshold_crossed "
    "exhausted over_limit_entered over_limit_exited debt_incurred burn_rate_anomaly closed_via_tenant_cascade",
    "reservation": "denied expired commit_overage observed_denied observed_allowed denial_rate_spike expiry_rate_spike "
    "released_via_tenant_cascade",
    "tenant": "created updated suspended reactivated closed settings_changed",
    "api_key": "created revoked expired permissions_changed auth_failed auth_failure_rate_spike "
    "revoked_via_tenant_cascade",
    "policy": "created updated deleted",
    "webhook": "created updated paused resumed disabled deleted disabled_via_tenant_cascade",
    "quota": "threshold_approaching counter_reset",
    "system": "store_connection_lost store_connection_restored high_latency webhook_delivery_failed webhook_test",
}
CATEGORIES: Final = tuple(_TYPES)
# Operation of a funding request -> type of its event.
_FUNDING: Final = {
    "CREDIT": "funded",
    "DEBIT": "debited",
    "RESET": "reset",
    "RESET_SPENT": "reset_spent",
    "REPAY_DEBT": "debt_repaid",
}
_KNOWN: Final = frozenset(f"{category}.{name}" for category, names in _TYPES.items() for name in names.split())


def is_event_type(name: str) -> bool:
    """Return whether a subscription can name this type. Types of a deployment begin with ``custom.``."""
    return name in _KNOWN or (name.startswith("custom.") and len(name) > len("custom."))


@frozen(kw_only=True)
class EventDraft:
    """What happened, without the members that every event has."""

    type: str
    tenant_id: str
    scope: str | None = None
    data: Body
    by_system: bool = False


def timestamp(now_ms: int) -> str:
    """Return a time as ISO 8601 with milliseconds and Z."""
    return (_EPOCH + timedelta(milliseconds=now_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def drafts_of(changes: Sequence[Change], form: Callable[[], Body]) -> Iterator[EventDraft]:
    """Yield the events of one change of the records.

    Args:
        changes: The records before and after the change.
        form: Returns the request that caused the change; called only if its response was stored.
    """
    settled = next((after for _, after in changes if isinstance(after, Reservation)), None)
    if any(isinstance(after, BudgetWindow) for _, after in changes):
        form = dict  # the clock began a window: the request that found it did not ask for it
    for before, after in changes:
        if isinstance(after, Reservation) and isinstance(before, Reservation):
            yield from _expired(before, after)
        elif isinstance(after, Budget):
            yield from _of_budget(before if isinstance(before, Budget) else None, after, settled, form)
        elif isinstance(after, Tenant):
            yield from _of_tenant(before if isinstance(before, Tenant) else None, after)
        elif isinstance(after, ApiKey):
            yield from _of_key(before if isinstance(before, ApiKey) else None, after, changes)
        elif isinstance(after, AdminInfo) and after.about == "policy":
            yield _of_policy(before, after)
        elif isinstance(after, StoredResponse):
            if after.observed:
                yield _observed(after, form())
            elif after.response.get("decision") == "DENY":
                yield _denied(after, form())
            elif after.operation == "commit" and settled is not None and "released" not in after.response:
                yield from _overage(settled, form()["actual"]["amount"], changes)


def _denied(stored: StoredResponse, form: Body) -> EventDraft:
    scope = stored.response.get("affected_scopes", [None])[-1]
    data = {
        "scope": scope,
        "unit": form["estimate"]["unit"],
        "reason_code": stored.response.get("reason_code"),
        "requested_amount": form["estimate"]["amount"],
        "action": form["action"],
        "subject": form["subject"],
    }
    return _draft("reservation.denied", stored.owner, scope, data)


def _observed(stored: StoredResponse, form: Body) -> EventDraft:
    response, scope = stored.response, stored.response["affected_scopes"][-1]
    data = {
        "scope": scope,
        "observe_mode": "OBSERVE",
        "unit": form["estimate"]["unit"],
        "estimated_amount": form["estimate"]["amount"],
        "action": form["action"],
        "subject": form["subject"],
    }
    if response["decision"] == "DENY":
        return _draft(
            "reservation.observed_denied", stored.owner, scope, data | {"deny_detail": response["deny_detail"]}
        )
    return _draft("reservation.observed_allowed", stored.owner, scope, data | {"decision": response["decision"]})


def _expired(before: Reservation, after: Reservation) -> Iterator[EventDraft]:
    if before.status != "ACTIVE" or after.status != "EXPIRED":
        return
    data = _reserved(after) | {
        "created_at": timestamp(after.created_at_ms),
        "expired_at": timestamp(after.expires_at_ms),
        "ttl_ms": after.expires_at_ms - after.created_at_ms,
        "extensions_used": after.extensions,
    }
    yield _draft("reservation.expired", after.tenant, after.scope_path, data, by_system=True)


def _overage(row: Reservation, actual: int, changes: Sequence[Change]) -> Iterator[EventDraft]:
    if actual <= row.reserved:
        return
    data = _reserved(row) | {
        "actual_amount": actual,
        "overage": actual - row.reserved,
        "overage_policy": row.overage_policy,
        "debt_incurred": max((_debt(change) for change in changes), default=0),
    }
    yield _draft("reservation.commit_overage", row.tenant, row.scope_path, data)


def _reserved(row: Reservation) -> Body:
    return {
        "reservation_id": row.reservation_id,
        "scope": row.scope_path,
        "unit": row.unit,
        "estimated_amount": row.reserved,
    }


def _of_budget(
    before: Budget | None, after: Budget, settled: Reservation | None, form: Callable[[], Body]
) -> Iterator[EventDraft]:
    tenant = after.scope.partition("/")[0].removeprefix("tenant:")
    if before is None:
        yield _draft("budget.created", tenant, after.scope, _operation(after, "CREATE", None))
        return
    is_reset = settled is None and after.spent > before.spent and form().get("operation") == "RESET_SPENT"
    if is_reset or _is_administered(before, after):
        yield from _administered(before, after, form(), tenant)
    common: Body = {"scope": after.scope, "unit": after.unit}
    incurred = after.debt - before.debt
    if incurred > 0:
        data = common | {"debt_incurred": incurred, "total_debt": after.debt, "overdraft_limit": after.overdraft_limit}
        if settled is not None:
            data |= {"reservation_id": settled.reservation_id, "overage_policy": settled.overage_policy}
        yield _draft("budget.debt_incurred", tenant, after.scope, data)
    if after.is_over_limit != before.is_over_limit:
        data = common | {
            "debt": after.debt,
            "overdraft_limit": after.overdraft_limit,
            "is_over_limit": after.is_over_limit,
        }
        entered = "entered" if after.is_over_limit else "exited"
        yield _draft(f"budget.over_limit_{entered}", tenant, after.scope, data)
    if before.remaining > 0 >= after.remaining:
        data = common | {"threshold": 1.0, "utilization": 1.0, "direction": "rising"}
        data |= {name: getattr(after, name) for name in ("allocated", "remaining", "spent", "reserved")}
        yield _draft("budget.exhausted", tenant, after.scope, data)


def _is_administered(before: Budget, after: Budget) -> bool:
    """Return whether the change is one that no runtime operation makes."""
    set_by_operator = after.allocated != before.allocated or after.status != before.status
    return set_by_operator or after.debt < before.debt or after.spent < before.spent


def _administered(before: Budget, after: Budget, form: Body, tenant: str) -> Iterator[EventDraft]:
    """Yield the events of a change by the operator. The admin operations name what they do; else the numbers say it."""
    requested = form.get("operation") or form.get("action")
    if requested in _FUNDING:
        named = [(_FUNDING[requested], requested)]
    elif after.allocated != before.allocated:
        named = [("funded", "CREDIT") if after.allocated > before.allocated else ("debited", "DEBIT")]
    else:
        named = [("debt_repaid", "REPAY_DEBT")] if after.debt < before.debt else []
    if after.status != before.status:
        names = {"FROZEN": "frozen", "CLOSED": "closed", "ACTIVE": "unfrozen"}
        named.append((names.get(str(after.status), "updated"), "STATUS_CHANGE"))
    for name, operation in named:
        data = _operation(after, operation, before)
        if isinstance(form.get("reason"), str):
            data["reason"] = form["reason"]
        if operation == "RESET_SPENT":
            data["spent_override_provided"] = form.get("spent") is not None
        yield _draft(f"budget.{name}", tenant, after.scope, data)


def _of_tenant(before: Tenant | None, after: Tenant) -> Iterator[EventDraft]:
    data: Body = {"tenant_id": after.name, "new_status": after.status, "changed_fields": []}
    if before is None:
        yield _draft("tenant.created", after.name, None, data)
        return
    names = {"SUSPENDED": "suspended", "CLOSED": "closed", "ACTIVE": "reactivated"}
    name = "updated" if after.status == before.status else names.get(str(after.status), "updated")
    yield _draft(f"tenant.{name}", after.name, None, data | {"previous_status": before.status})


def _of_key(before: ApiKey | None, after: ApiKey, changes: Sequence[Change]) -> Iterator[EventDraft]:
    """Yield the event of a key. One that a test made has no members of the admin operations, and no event."""
    info = next((each.values for _, each in changes if isinstance(each, AdminInfo) and each.about == "api_key"), {})
    data: Body = {"key_id": after.key_id, "new_status": after.status}
    if before is None and "name" in info:
        yield _draft("api_key.created", after.tenant or "", None, data | {"key_name": info["name"]})
    elif before is not None and (before.status, after.status) == ("ACTIVE", "REVOKED"):
        is_cascade = info.get("revoked_reason") == "tenant_closed"
        name = "api_key.revoked_via_tenant_cascade" if is_cascade else "api_key.revoked"
        reason = {"failure_reason": info["revoked_reason"]} if "revoked_reason" in info else {}
        yield _draft(name, after.tenant or "", None, data | {"previous_status": before.status, **reason})


def _of_policy(before: Record | None, after: AdminInfo) -> EventDraft:
    scope = after.values["scope_pattern"]
    data = {"policy_id": after.name, "scope_pattern": scope, "name": after.values["name"]}
    return _draft(f"policy.{'created' if before is None else 'updated'}", after.values["tenant"], scope, data)


def _operation(budget: Budget, operation: str, before: Budget | None) -> Body:
    data: Body = {"scope": budget.scope, "unit": budget.unit, "operation": operation, "new_state": _state(budget)}
    return data if before is None else data | {"previous_state": _state(before)}


def _state(budget: Budget) -> Body:
    return {name: getattr(budget, name) for name in ("allocated", "remaining", "debt", "spent", "reserved", "status")}


def _debt(change: Change) -> int:
    before, after = change
    return after.debt - before.debt if isinstance(before, Budget) and isinstance(after, Budget) else 0


def _draft(type_: str, tenant: str, scope: str | None, data: Body, *, by_system: bool = False) -> EventDraft:
    return EventDraft(type=type_, tenant_id=tenant, scope=scope, data=data, by_system=by_system)
