"""The admin operations on tenants. The state is that of the reference server; see `docs/admin.md`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import evolve

from cycles.embedded import admin_bulk, admin_forms as forms
from cycles.embedded.admin_state import AdminCall, AdminState, Result
from cycles.embedded.errors import ApiError
from cycles.embedded.records import Body, Record, Tenant

_SETTINGS: Final = (
    "default_commit_overage_policy", "default_reservation_ttl_ms", "max_reservation_ttl_ms",
    "max_reservation_extensions",
)  # fmt: skip
_INFO: Final = ("name", "parent_tenant_id", "reservation_expiry_policy", "metadata")
_STATUSES: Final = ("ACTIVE", "SUSPENDED", "CLOSED")
_SORTS: Final = ("status", "name", "created_at", "tenant_id")


def _result(state: AdminState, status: int, tenant_id: str) -> Result:
    return Result(status, state.tenant_body(tenant_id), tenant_id, ("tenant", tenant_id))


def create(state: AdminState, call: AdminCall) -> Result:
    """Create a tenant; return the existing one if it has the same name."""
    tenant_id, form = call.form["tenant_id"], call.form
    if "name" in state.info("tenant", tenant_id):
        if state.info("tenant", tenant_id)["name"] != form["name"]:
            raise ApiError(
                "DUPLICATE_RESOURCE",
                f"tenant {tenant_id} exists with another name; update it, or choose another id",
                status=409,
            )
        return _result(state, 200, tenant_id)
    members = {name: form.get(name) for name in _INFO}
    state.tables.apply(
        _changed(state.tenant_record(tenant_id), form),
        state.with_info("tenant", tenant_id, created_at=call.now, **members),
    )
    return _result(state, 201, tenant_id)


def _changed(record: Tenant, form: Body) -> Tenant:
    return evolve(record, **{name: form[name] for name in _SETTINGS if name in form})


def get(state: AdminState, call: AdminCall) -> Result:
    """Return a tenant."""
    _require(state, call.path_id)
    return _result(state, 200, call.path_id)


def _require(state: AdminState, tenant_id: str) -> None:
    if tenant_id not in state.tenant_ids():
        raise ApiError("TENANT_NOT_FOUND", f"tenant not found: {tenant_id[:80]}", status=404)


def listed(state: AdminState, call: AdminCall) -> Result:
    """Return one page of tenants, newest first."""
    query = forms.given(call.query, "parent_tenant_id")
    forms.choice(query, "status", _STATUSES)
    forms.search(query)
    rows = _matching((state.tenant_body(tenant_id) for tenant_id in reversed(state.tenant_ids())), query)
    forms.sort(rows, query, _SORTS, "created_at")
    return Result(200, forms.page("tenants", rows, lambda row: str(row["tenant_id"]), query))


def _matching(rows: Iterable[Body], wanted: Mapping[str, Any]) -> list[Body]:
    """Return the tenants that a filter or a query chooses."""
    search = wanted.get("search", "").lower()
    return [
        row
        for row in rows
        if wanted.get("status") in (None, row["status"])
        and wanted.get("parent_tenant_id") in (None, row.get("parent_tenant_id"))
        and (search in row["tenant_id"].lower() or search in row["name"].lower())
    ]


def bulk(state: AdminState, call: AdminCall) -> Result:
    """Suspend, reactivate or close several tenants."""

    def change(row: Body) -> bool:
        if row["status"] == status:
            return False
        _update(state, row["tenant_id"], {"status": status}, call)
        return True

    status = {"SUSPEND": "SUSPENDED", "REACTIVATE": "ACTIVE", "CLOSE": "CLOSED"}[call.form["action"]]
    rows = [state.tenant_body(tenant_id) for tenant_id in state.tenant_ids()]
    return admin_bulk.run(
        state, call, "tenant", lambda wanted: _matching(rows, wanted), lambda row: str(row["tenant_id"]), change
    )


def update(state: AdminState, call: AdminCall) -> Result:
    """Change a tenant. Closing it closes its budgets, revokes its keys and releases its reservations."""
    _require(state, call.path_id)
    _update(state, call.path_id, call.form, call)
    return _result(state, 200, call.path_id)


def _update(state: AdminState, tenant_id: str, form: Body, call: AdminCall) -> None:
    record = state.tenant_record(tenant_id)
    status = form.get("status", record.status)
    if record.status == "CLOSED" and status != "CLOSED":
        raise ApiError("INVALID_REQUEST", f"tenant {tenant_id} is closed; no other status can follow")
    times: dict[str, Any] = {"updated_at": call.now}
    if status != record.status and status in ("SUSPENDED", "CLOSED"):
        times["suspended_at" if status == "SUSPENDED" else "closed_at"] = call.now
    members = {name: form[name] for name in _INFO if name in form}
    owned = _closed(state, tenant_id, call) if status == "CLOSED" and record.status != "CLOSED" else []
    state.tables.apply(
        evolve(_changed(record, form), status=status),
        state.with_info("tenant", tenant_id, **times, **members),
        *owned,
    )


def _closed(state: AdminState, tenant_id: str, call: AdminCall) -> list[Record]:
    """Return the records of what a tenant owns, in their state after the tenant is closed."""
    records: list[Record] = []
    held: dict[tuple[str, str], int] = {}
    for row in state.tables.reservations.values():
        if row.tenant == tenant_id and row.status == "ACTIVE":
            records.append(evolve(row, status="RELEASED", finalized_at_ms=call.now_ms))
            for scope in row.budgeted:
                held[scope, row.unit] = held.get((scope, row.unit), 0) + row.reserved
    for budget in state.budgets_of(tenant_id):
        released = budget.moved(reserved=-held.get((budget.scope, budget.unit), 0))
        records.append(evolve(released, status="CLOSED"))
    for key in state.tables.api_keys.values():
        if key.tenant == tenant_id and key.status == "ACTIVE":
            records.append(evolve(key, status="REVOKED"))
            reason = {"revoked_at": call.now, "revoked_reason": "tenant_closed"}
            records.append(state.with_info("api_key", key.key_id, **reason))
    return records
