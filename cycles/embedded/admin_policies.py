"""The admin operations on policies. They are stored and listed; the runtime operations do not apply them.

The reference server does not apply them either, but for the quotas of protocol 0.1.26. See `docs/admin.md`.
"""

from __future__ import annotations

import uuid
from typing import Final

from cycles.embedded import admin_forms as forms
from cycles.embedded.admin_state import AdminCall, AdminState, Result
from cycles.embedded.errors import ApiError
from cycles.embedded.records import Body

_ABOUT: Final = "policy"
_STATUSES: Final = ("ACTIVE", "DISABLED")


def create(state: AdminState, call: AdminCall) -> Result:
    """Create a policy of a tenant."""
    tenant, form = _tenant_of(call, call.form), call.form
    state.require_tenant(tenant, active=True)
    _check_pattern(form["scope_pattern"], tenant)
    policy_id = f"pol_{uuid.uuid4().hex[:16]}"
    members = {"priority": 0} | {name: value for name, value in form.items() if name != "tenant_id"}
    info = state.with_info(_ABOUT, policy_id, tenant=tenant, status="ACTIVE", created_at=call.now, **members)
    state.tables.apply(info)
    audit = {"scope_pattern": form["scope_pattern"], "name": form["name"]}
    return Result(201, _body(state, policy_id), tenant, (_ABOUT, policy_id), audit)


def _tenant_of(call: AdminCall, given: Body) -> str:
    if call.tenant is not None:
        return call.tenant
    if "tenant_id" not in given:
        raise ApiError("INVALID_REQUEST", "tenant_id: is required with the admin key")
    return str(given["tenant_id"])


def _check_pattern(pattern: str, tenant: str) -> None:
    scope = pattern.removesuffix("/*")
    if scope.endswith(":*") and scope == pattern:
        scope = f"{pattern[:-1]}x"
    try:
        is_valid = bool(forms.scope_of(scope, tenant)) and scope.startswith(f"tenant:{tenant}")  # not tenant:ACME
    except ApiError:
        is_valid = False
    if not is_valid:
        wanted = f"must be a scope below tenant:{tenant}; only its last level or id may be *"
        raise ApiError("INVALID_REQUEST", f"scope_pattern: {pattern!r:.80} {wanted}")


def _body(state: AdminState, policy_id: str) -> Body:
    info = state.info(_ABOUT, policy_id)
    return {"policy_id": policy_id} | {name: value for name, value in info.items() if name != "tenant"}


def listed(state: AdminState, call: AdminCall) -> Result:
    """Return one page of the policies of a tenant by their ids; the reference server neither sorts nor searches."""
    query = forms.given(call.query, "scope_pattern")
    tenant = _tenant_of(call, dict(query))
    status = forms.choice(query, "status", _STATUSES)
    names = (name for (about, name), info in state.tables.admin_info.items() if _is_of(about, info.values, tenant))
    rows = [_body(state, name) for name in sorted(names)]
    chosen = [
        row
        for row in rows
        if status in (None, row["status"]) and query.get("scope_pattern") in (None, row["scope_pattern"])
    ]
    return Result(200, forms.page("policies", chosen, lambda row: str(row["policy_id"]), query))


def _is_of(about: str, values: Body, tenant: str) -> bool:
    return about == _ABOUT and values["tenant"] == tenant


def update(state: AdminState, call: AdminCall) -> Result:
    """Change a policy; its scopes stay."""
    info = state.info(_ABOUT, call.path_id)
    if not info or call.tenant not in (None, info["tenant"]):
        raise ApiError("NOT_FOUND", f"policy not found: {call.path_id[:60]}")
    state.tables.apply(state.with_info(_ABOUT, call.path_id, updated_at=call.now, **call.form))
    return Result(200, _body(state, call.path_id), info["tenant"], (_ABOUT, call.path_id))
