"""The admin operations on API keys. The state is that of the reference server; see `docs/admin.md`."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Final

from attrs import evolve

from cycles.embedded import admin_forms as forms
from cycles.embedded.admin_state import AdminCall, AdminState, Result
from cycles.embedded.errors import ApiError
from cycles.embedded.records import DAY_MS, ApiKey

_LIFETIME_MS: Final = 90 * DAY_MS
_STATUSES: Final = ("ACTIVE", "REVOKED", "EXPIRED")
_SORTS: Final = ("key_id", "name", "tenant_id", "status", "created_at", "expires_at")


def create(state: AdminState, call: AdminCall) -> Result:
    """Create an API key. Only this response contains its secret."""
    form, tenant = call.form, call.form["tenant_id"]
    state.require_tenant(tenant, active=True)
    expires_at_ms = call.now_ms + _LIFETIME_MS
    if "expires_at" in form:
        expires_at_ms = int(datetime.fromisoformat(form["expires_at"]).timestamp() * 1000)
    key = ApiKey(secret=f"cyc_live_{secrets.token_urlsafe(24)}", tenant=tenant, expires_at_ms=expires_at_ms)
    members = {name: form.get(name) for name in ("name", "description", "scope_filter", "metadata")}
    members["permissions"] = form.get("permissions", list(forms.DEFAULT_PERMISSIONS))
    info = state.with_info("api_key", key.key_id, created_at=call.now, **members)
    state.tables.apply(key, info)
    shown = state.key_body(key)
    names = ("key_id", "key_prefix", "tenant_id", "permissions", "created_at", "expires_at")
    body = {"key_secret": key.secret, **{name: shown[name] for name in names}}
    return Result(201, body, tenant, ("api_key", shown["key_id"]), {"name": form["name"]})


def listed(state: AdminState, call: AdminCall) -> Result:
    """Return one page of API keys without their secrets, newest first."""
    query = forms.given(call.query, "tenant_id")
    status, search = forms.choice(query, "status", _STATUSES), forms.search(query)
    chosen = [
        row
        for row in (state.key_body(key) for key in reversed(state.tables.api_keys.values()))
        if query.get("tenant_id") in (None, row["tenant_id"])
        and status in (None, row["status"])
        and (search in row["key_id"] or search in row.get("name", "").lower())
    ]
    forms.sort(chosen, query, _SORTS, "created_at")
    return Result(200, forms.page("keys", chosen, lambda row: str(row["key_id"]), query))


def update(state: AdminState, call: AdminCall) -> Result:
    """Change name, description, permissions, scopes or metadata of an API key."""
    key = state.key_of(call.path_id)
    state.require_tenant(key.tenant or "")
    state.tables.apply(state.with_info("api_key", key.key_id, **call.form))
    return Result(200, state.key_body(key), key.tenant, ("api_key", key.key_id))


def revoke(state: AdminState, call: AdminCall) -> Result:
    """Revoke an API key permanently."""
    key = state.key_of(call.path_id)
    state.require_tenant(key.tenant or "")
    if key.status == "REVOKED":
        raise ApiError("KEY_REVOKED", f"API key {call.path_id} is revoked already; nothing was changed", status=409)
    key = evolve(key, status="REVOKED")
    members = {"revoked_at": call.now, "revoked_reason": call.query.get("reason")}
    state.tables.apply(key, state.with_info("api_key", key.key_id, **members))
    audit = {"reason": call.query["reason"]} if "reason" in call.query else None
    return Result(200, state.key_body(key), key.tenant, ("api_key", key.key_id), audit)
