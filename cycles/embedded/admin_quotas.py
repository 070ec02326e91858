"""The admin operations on quota counters (protocol 0.1.26). See `docs/admin.md`."""

from __future__ import annotations

from attrs import evolve

from cycles._core.values.action_kinds import PER_RUN, WINDOWS
from cycles.embedded import admin_forms as forms
from cycles.embedded.action_policies import RISK
from cycles.embedded.admin_state import AdminCall, AdminState, Result
from cycles.embedded.errors import ApiError
from cycles.embedded.records import Body, QuotaCounter
from cycles.embedded.webhook_events import timestamp


def _body(counter: QuotaCounter) -> Body:
    times: Body = {}
    if counter.counted_at_ms:
        times["last_incremented_at"] = timestamp(counter.counted_at_ms)
    if counter.until_ms is not None:
        times["expires_at"] = timestamp(counter.until_ms)
    return counter.to_body() | times


def listed(state: AdminState, call: AdminCall) -> Result:
    """Return one page of the counters of a tenant."""
    query, tenant = call.query, call.tenant or call.query.get("tenant_id")
    if not tenant:
        raise ApiError("INVALID_REQUEST", "the query parameter tenant_id is missing; send it with the admin key")
    window = forms.choice(query, "window", WINDOWS)
    with_zero = forms.flag(query, "include_zero")
    chosen = [
        counter
        for counter in state.tables.counters.values()
        if counter.tenant == tenant
        and counter.scope.startswith(query.get("scope", "").lower())
        and query.get("action_kind") in (None, counter.action_kind)
        and window in (None, counter.window)
        and ("run_id" not in query or (counter.window == PER_RUN and counter.window_key == query["run_id"]))
        and (with_zero or counter.used > 0)
    ]
    return Result(200, forms.page("counters", [_body(each) for each in chosen], _id, query), tenant)


def _id(row: Body) -> str:
    names = ("scope", "action_kind", "risk_class", "window", "window_key")
    return "|".join(str(row.get(name, "")) for name in names)


def reset(state: AdminState, call: AdminCall) -> Result:
    """Set one counter to zero, and return it with what it had counted."""
    form = call.form
    tenant = form.get("tenant_id")
    if not tenant:
        raise ApiError("INVALID_REQUEST", "tenant_id is missing; send the tenant of the counter")
    wanted = {
        "tenant": tenant,
        "scope": form["scope"].lower(),
        "window": form["window"],
        "action_kind": form.get("action_kind") or RISK,
        "risk_class": form.get("risk_class"),
        "window_key": form.get("window_key") or form.get("run_id"),
    }
    found = [
        counter
        for counter in state.tables.counters.values()
        if all(value is None or getattr(counter, name) == value for name, value in wanted.items())
    ]
    if not found:
        raise ApiError("NOT_FOUND", f"no such quota counter: {form['scope']!r:.80}, {form['window']}")
    counter = found[-1]  # the newest window, if the request names none
    cleared = evolve(counter, used=0)
    state.tables.apply(cleared)
    audit = {"previous_used": counter.used} | ({"reason": form["reason"]} if "reason" in form else {})
    body = {"counter": _body(cleared), "previous_used": counter.used}
    return Result(200, body, tenant, ("action_quota_counter", _id(_body(counter))), audit)
