"""The rows of the dashboard's lists as JSON values. Records and requests in, JSON out; nothing here holds a lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cycles._core.amounts import Unit
from cycles.embedded import listing
from cycles.embedded.dashboard.handled import Handled
from cycles.embedded.faults import Faults
from cycles.embedded.records import Body, Budget, Reservation

# Longest path and query that is shown.
MAX_TARGET: Final = 200


def _share(budget: Budget) -> float:
    """Return the used share of a budget: what is spent, reserved and owed."""
    if budget.allocated <= 0:
        return 1.0
    return 1 - budget.remaining / budget.allocated


SORTS: Final[dict[str, Callable[[Budget], tuple[Any, ...]]]] = {
    "share": lambda budget: (-_share(budget), budget.scope, budget.unit),
    "name": lambda budget: (budget.scope.split("/"), budget.unit),
    "left": lambda budget: (budget.unit != Unit.USD_MICROCENTS, budget.unit, budget.remaining, budget.scope),
}
"""The orders of the list of budgets."""


def budget_row(budget: Budget) -> Body:
    """Return a balance with the status of its budget."""
    return budget.balance() | {"status": budget.status}


def reservation_row(row: Reservation) -> Body:
    """Return the protocol's row of a reservation, with its extensions and, once it is settled, what was released."""
    shown = listing.row_of(row, include=())
    shown |= {"extensions": row.extensions, "max_extensions": row.max_extensions}
    shown |= {"grace_period_ms": row.grace_period_ms}
    if row.status != "ACTIVE":
        charged = row.charged or 0
        shown |= {"charged": row.amount(charged), "released": row.amount(max(0, row.reserved - charged))}
    return shown


def decision_row(handled: Handled) -> Body:
    """Return a decision: what was wanted, what the ledger decided, and of a denial the rule and what was missing."""
    form, result = handled.form, handled.result
    denied = handled.is_denial
    shown: Body = {
        "id": handled.number,
        "at_ms": handled.at_ms,
        "operation": handled.operation,
        "decision": "DENY" if denied else result.get("decision", "ALLOW"),
        "request_id": request_id(handled),
        "subject": form.get("subject"),
        "scope_path": scope_path(handled),
        "action": form.get("action"),
        "amount": form.get("estimate", form.get("actual")),
        "dry_run": True if form.get("dry_run") is True else None,
        "reservation_id": result.get("reservation_id"),
        "caps": result.get("caps"),
    }
    if denied:
        shown |= {"reason": handled.reason, **_missing(handled)}
    return {name: value for name, value in shown.items() if value is not None}


def _missing(handled: Handled) -> Body:
    """Return which budget denied a request, why, and how much was missing. The ledger checks the outermost first."""
    if handled.wanted is None:
        return {}
    unit, amount = handled.wanted
    if not handled.budgets:
        return {"rule": f"no scope of the subject has a budget in {unit}"}
    for budget in handled.budgets:
        rule = _rule(budget, amount)
        if rule is None:
            continue
        shown: Body = {"rule": rule, "denied_by": budget.scope, "remaining": budget.amount(budget.remaining)}
        if budget.remaining < amount:
            shown["missing"] = budget.amount(amount - budget.remaining)
        return shown
    return {}


def _rule(budget: Budget, amount: int) -> str | None:
    if budget.status != "ACTIVE":
        return f"the budget is {budget.status}"
    if budget.is_over_limit:
        return "the budget is over its limit"
    if budget.debt > 0 and budget.overdraft_limit == 0:
        return "the budget has debt and no overdraft limit"
    return "the remaining budget is too small" if budget.remaining < amount else None


def request_row(handled: Handled) -> Body:
    """Return a request: its operation, status, duration, and whether it was a replay. The body is not in it."""
    response = handled.response
    shown: Body = {
        "id": handled.number,
        "at_ms": handled.at_ms,
        "operation": handled.operation,
        "method": handled.request.method[:MAX_TARGET],
        "target": handled.request.target[:MAX_TARGET],
        "status": None if response is None else response.status,
        "took_ms": round(handled.took_ms, 3),
        "replay": handled.is_replay,
        "fault": None if handled.fault is None else handled.fault.kind,
        "request_id": request_id(handled),
        "scope_path": scope_path(handled),
        "bytes": len(handled.request.body),
    }
    return {name: value for name, value in shown.items() if value is not None}


def request_id(handled: Handled) -> str | None:
    """Return the request id of a response."""
    return None if handled.response is None else handled.response.headers.get("X-Request-Id")


def scope_path(handled: Handled) -> str | None:
    """Return the deepest scope of a request."""
    return handled.scopes[-1] if handled.scopes else None


def fault_rows(faults: Faults) -> list[Body]:
    """Return the faults that have not happened yet; `times` is null if a fault hits every request."""
    rows: list[Body] = []
    for operation, fault, times in faults.waiting():
        row: Body = {"operation": operation, "kind": fault.kind, "times": times}
        seconds = fault.drip_s if fault.drip_s is not None else fault.delay_s
        if seconds:
            row["seconds"] = seconds
        if fault.status is not None:
            row["status"] = fault.status
        rows.append(row)
    return rows
