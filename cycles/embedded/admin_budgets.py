"""The admin operations on budgets. The state is that of the reference server; see `docs/admin.md`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from attrs import evolve

from cycles.embedded import admin_bulk, admin_forms as forms
from cycles.embedded.admin_state import AdminCall, AdminState, Result, budget_name, ledger_id, owner_of
from cycles.embedded.errors import ApiError
from cycles.embedded.records import DAY_MS, Body, Budget

_STATUSES: Final = ("ACTIVE", "FROZEN", "CLOSED")
_SORTS: Final = ("tenant_id", "scope", "unit", "status", "utilization", "debt", "commit_overage_policy")
_BEFORE_AND_AFTER: Final = tuple(
    f"{when}_{name}" for name in ("allocated", "remaining", "debt", "spent") for when in ("previous", "new")
)
_INFO: Final = ("commit_overage_policy", "rollover_policy", "period_start", "period_end")


def _result(status: int, body: Body, budget: Budget, **audit: Any) -> Result:
    return Result(status, body, owner_of(budget), ("budget", budget_name(budget)), audit or None)


def create(state: AdminState, call: AdminCall) -> Result:
    """Create the budget of a scope in one unit."""
    form = call.form
    if call.tenant is not None and "tenant_id" in form:
        raise ApiError("INVALID_REQUEST", "tenant_id: is not allowed with a tenant's key, which decides the tenant")
    tenant = call.tenant or form.get("tenant_id")
    if not tenant:
        raise ApiError("INVALID_REQUEST", "tenant_id: is required with the admin key")
    scope = forms.scope_of(form["scope"], tenant)
    state.require_tenant(tenant, active=True)
    for name in ("allocated", "overdraft_limit"):
        _require_unit(form.get(name), form["unit"])
    if (scope, form["unit"]) in state.tables.budgets:
        raise ApiError(
            "DUPLICATE_RESOURCE", f"{scope} has a budget in {form['unit']} already; update that one", status=409
        )
    budget = Budget(
        scope=scope,
        unit=form["unit"],
        allocated=form["allocated"]["amount"],
        overdraft_limit=form.get("overdraft_limit", {}).get("amount", 0),
    )
    info = state.with_info("budget", budget_name(budget), created_at=call.now, **{n: form.get(n) for n in _INFO})
    state.tables.apply(budget, info)
    return _result(201, state.budget_body(budget), budget)


def _require_unit(amount: Body | None, unit: str) -> None:
    if amount is not None and amount["unit"] != unit:
        raise ApiError("UNIT_MISMATCH", f"the budget is in {unit}, got an amount in {amount['unit']}")


def _found(state: AdminState, call: AdminCall) -> Budget:
    budget = state.budget(*forms.place_of(call.query))
    if call.tenant is not None and owner_of(budget) != call.tenant.lower():
        raise ApiError("FORBIDDEN", "the budget belongs to another tenant; use a key of that tenant")
    return budget


def lookup(state: AdminState, call: AdminCall) -> Result:
    """Return the budget of a scope in one unit."""
    budget = _found(state, call)
    return _result(200, state.budget_body(budget), budget)


def listed(state: AdminState, call: AdminCall) -> Result:
    """Return one page of budgets, the most used ones first."""
    query = forms.given(call.query, "scope_prefix")
    wanted: dict[str, Any] = {
        "unit": forms.choice(query, "unit", ("USD_MICROCENTS", "TOKENS", "CREDITS", "RISK_POINTS")),
        "status": forms.choice(query, "status", _STATUSES),
        "over_limit": forms.flag(query, "over_limit"),
        "has_debt": forms.flag(query, "has_debt"),
        "utilization_min": _share(query, "utilization_min"),
        "utilization_max": _share(query, "utilization_max"),
        "scope_prefix": query.get("scope_prefix"),
        "search": forms.search(query),
    }
    chosen = matching(state.budgets_of(call.tenant or query.get("tenant_id")), wanted)
    chosen.sort(key=lambda budget: (budget.scope, budget.unit))
    forms.sort(chosen, query, _SORTS, "utilization", partial(_sort_value, state))
    rows = [state.budget_body(budget) for budget in chosen]
    return Result(200, forms.page("ledgers", rows, lambda row: str(row["ledger_id"]), query))


def _share(query: Mapping[str, str], name: str) -> float | None:
    share = forms.number(query, name)
    if share is not None and not 0 <= share <= 1:
        raise ApiError("INVALID_REQUEST", f"{name}: must be 0 to 1, got {share:g}")
    return share


def _sort_value(state: AdminState, budget: Budget, name: str) -> Any:
    if name == "utilization":
        return _utilization(budget)
    return budget.debt if name == "debt" else state.budget_body(budget).get(name, "")


def _utilization(budget: Budget) -> float:
    return (budget.spent + budget.reserved) / budget.allocated if budget.allocated else 0.0


def matching(budgets: Iterable[Budget], wanted: Mapping[str, Any]) -> list[Budget]:
    """Return the budgets that match all filters which are not None."""

    def fits(budget: Budget) -> bool:
        least, most = wanted.get("utilization_min"), wanted.get("utilization_max")
        used = _utilization(budget)
        return (
            wanted.get("unit") in (None, budget.unit)
            and wanted.get("status") in (None, budget.status)
            and wanted.get("over_limit") in (None, budget.is_over_limit)
            and wanted.get("has_debt") in (None, budget.debt > 0)
            and (least is None or used >= least)
            and (most is None or used <= most)
            and budget.scope.startswith((wanted.get("scope_prefix") or "").lower())
            and (wanted.get("search") or "").lower() in budget.scope
        )

    return [budget for budget in budgets if fits(budget)]


def update(state: AdminState, call: AdminCall) -> Result:
    """Change overdraft limit, overage policy or metadata of a budget."""
    budget, form = _found(state, call), call.form
    state.require_tenant(owner_of(budget))
    _require_unit(form.get("overdraft_limit"), budget.unit)
    if "overdraft_limit" in form:
        budget = evolve(budget, overdraft_limit=form["overdraft_limit"]["amount"])
    members = {name: form[name] for name in ("commit_overage_policy",) if name in form}
    return _result(200, state.save_budget(budget, call.now, **members), budget)


def freeze(state: AdminState, call: AdminCall) -> Result:
    """Freeze an active budget."""
    return _set_status(state, call, "ACTIVE", "FROZEN")


def unfreeze(state: AdminState, call: AdminCall) -> Result:
    """Make a frozen budget active."""
    return _set_status(state, call, "FROZEN", "ACTIVE")


def _set_status(state: AdminState, call: AdminCall, before: str, after: str) -> Result:
    budget = _found(state, call)
    state.require_tenant(owner_of(budget))
    if budget.status != before:
        raise ApiError("INVALID_REQUEST", f"the budget is {budget.status}, but it must be {before}", status=409)
    budget = evolve(budget, status=after)
    audit = {"reason": call.form["reason"]} if "reason" in call.form else {}
    return _result(200, state.save_budget(budget, call.now), budget, **audit)


# --- funding ------------------------------------------------------------------------------------------------------


def fund(state: AdminState, call: AdminCall) -> Result:
    """Change the allocation, the spent amount or the debt of a budget."""
    tenant = call.tenant or call.query.get("tenant_id")
    if not tenant:
        raise ApiError("INVALID_REQUEST", "the query parameter tenant_id is missing; send it with the admin key")
    budget = state.budget(*forms.place_of(call.query))
    if owner_of(budget) != tenant.lower():
        raise ApiError("FORBIDDEN", "the budget belongs to another tenant; use a key of that tenant")
    audit = {"scope": budget.scope, "unit": budget.unit, "funding_operation": call.form["operation"]}
    key = call.form.get("idempotency_key")
    audit |= {name: call.form[name] for name in ("reason", "idempotency_key") if name in call.form}
    replay = None if key is None else state.stored_response("fund", key, call)
    if replay is not None:
        return _result(200, replay | {"timestamp": call.now}, budget, **audit)
    state.require_tenant(owner_of(budget))
    body = _change(state, budget, call.form["operation"], call.form, call.now)
    if key is not None:
        state.store_response("fund", key, call, body, DAY_MS)
    moved = {name: body[name]["amount"] for name in _BEFORE_AND_AFTER}
    if call.form["operation"] == "RESET_SPENT":
        moved["spent_override_provided"] = "spent" in call.form
    return _result(200, body, budget, **audit, amount=call.form["amount"]["amount"], **moved)


def _change(state: AdminState, budget: Budget, operation: str, form: Body, now: str) -> Body:
    if "spent" in form and operation != "RESET_SPENT":
        raise ApiError("INVALID_REQUEST", "spent: belongs to RESET_SPENT only; omit it")
    for name in ("amount", "spent"):
        _require_unit(form.get(name), budget.unit)
    if budget.status in ("FROZEN", "CLOSED"):
        raise ApiError(
            f"BUDGET_{budget.status}",
            f"the budget of {budget.scope} is {budget.status}; only an ACTIVE one can be funded",
        )
    after = _funded(budget, operation, form["amount"]["amount"], form.get("spent", {}).get("amount", 0))
    state.save_budget(after, now)
    names = ("allocated", "remaining", "debt", "spent")
    return {
        "operation": operation,
        **{f"previous_{name}": budget.amount(getattr(budget, name)) for name in names},
        **{f"new_{name}": after.amount(getattr(after, name)) for name in names},
        "timestamp": now,
    }


def _funded(budget: Budget, operation: str, amount: int, spent: int) -> Budget:
    match operation:
        case "CREDIT":
            return evolve(budget, allocated=budget.allocated + amount)
        case "DEBIT":
            if budget.remaining < amount:
                raise ApiError(
                    "BUDGET_EXCEEDED",
                    f"the amount is too large; {budget.scope} has {budget.remaining} {budget.unit} left",
                )
            return evolve(budget, allocated=budget.allocated - amount)
        case "RESET":
            return evolve(budget, allocated=amount)
        case "RESET_SPENT":
            return evolve(budget, allocated=amount, spent=spent)
    repaid = min(budget.debt, amount)
    return evolve(budget, debt=budget.debt - repaid, allocated=budget.allocated + amount - repaid)


def bulk(state: AdminState, call: AdminCall) -> Result:
    """Fund several budgets. Rows are not one transaction: a row may fail although others are changed."""

    def change(budget: Budget) -> bool:
        state.require_tenant(owner_of(budget))
        _change(state, budget, call.form["action"], call.form, call.now)
        return True

    if "amount" not in call.form:
        raise ApiError("INVALID_REQUEST", f"amount: is required for {call.form['action']}")
    return admin_bulk.run(
        state, call, "budget", lambda wanted: matching(state.budgets_of(wanted["tenant_id"]), wanted), ledger_id, change
    )
