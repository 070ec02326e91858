"""Funding of budgets. Every request has an idempotency key that names operation, scope, unit and period."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from cycles._client.call_options import RequestOptions
from cycles._core.amounts import Amount
from cycles._core.messages.requests import Call, new_key, without_none
from cycles._errors import InvalidRequestError
from cycles.admin._arguments import lowered
from cycles.admin._budgets import amount_body, budgets
from cycles.admin._bulk import report_of
from cycles.admin._channel import Channel, change
from cycles.admin._scopes import checked_scope, funding_key, tenant_of
from cycles.admin.results import BulkReport, Funding


async def fund(
    channel: Channel,
    scope: str,
    amount: Amount,
    *,
    operation: str,
    spent: Amount | None = None,
    reason: str | None = None,
    idempotency_key: str | None = None,
    **request: Unpack[RequestOptions],
) -> Funding:
    """Change the allocation, the spent amount or the debt of a budget.

    The request is repeated with the same key if its outcome is unknown. A repetition within 24 hours returns the first
    result.

    Args:
        amount: Amount of the operation; its unit selects the budget.
        operation: CREDIT, DEBIT, RESET, RESET_SPENT or REPAY_DEBT.
        spent: Spent amount of the new period; RESET_SPENT only.
        reason: Reason for the audit log, at most 512 characters.
        idempotency_key: Your key for this change, so that a re-run of your program does not fund twice. The key that is
            sent names operation, scope and unit too: one key of yours may be used for several budgets.

    Raises:
        InvalidRequestError: naming the argument that is wrong; nothing was sent.
        BudgetExceededError: if a DEBIT is larger than the remaining amount.
        BudgetFrozenError: if the budget is frozen.
    """
    path = checked_scope(scope)
    body = _funding(operation, amount, spent, reason)
    unit = body["amount"]["unit"]
    body["idempotency_key"] = funding_key(
        new_key() if idempotency_key is None else idempotency_key, operation, path, unit
    )
    query = {"scope": path, "unit": unit, "tenant_id": tenant_of(path)}
    success = await change(channel, Call("fundBudget", query=query, body=body))
    return Funding.read(success.body, **success.ids)


def _funding(operation: str, amount: Amount, spent: Amount | None, reason: str | None) -> dict[str, Any]:
    if spent is not None and operation != "RESET_SPENT":
        raise InvalidRequestError(f"spent belongs to the operation RESET_SPENT only: got {operation!r:.80}; omit spent")
    sent = amount_body("amount", amount)
    if isinstance(spent, Amount) and spent.unit != amount.unit:
        raise InvalidRequestError(f"spent must be in the unit of the amount, {amount.unit}: got {spent}")
    body = {"operation": operation, "amount": sent}
    return body | without_none(spent=None if spent is None else amount_body("spent", spent), reason=reason)


async def credit(
    channel: Channel,
    scope: str,
    amount: Amount,
    *,
    reason: str | None = None,
    idempotency_key: str | None = None,
    **request: Unpack[RequestOptions],
) -> Funding:
    """Add to the allocation of a budget. Debt stays unchanged; `repay_debt` repays it."""
    return await fund(channel, scope, amount, operation="CREDIT", reason=reason, idempotency_key=idempotency_key)


async def debit(
    channel: Channel,
    scope: str,
    amount: Amount,
    *,
    reason: str | None = None,
    idempotency_key: str | None = None,
    **request: Unpack[RequestOptions],
) -> Funding:
    """Remove from the allocation of a budget, at most what remains.

    Raises:
        BudgetExceededError: if less remains.
    """
    return await fund(channel, scope, amount, operation="DEBIT", reason=reason, idempotency_key=idempotency_key)


async def resize(
    channel: Channel,
    scope: str,
    amount: Amount,
    *,
    reason: str | None = None,
    idempotency_key: str | None = None,
    **request: Unpack[RequestOptions],
) -> Funding:
    """Set the allocation of a budget to an amount. Spent amount, reservations and debt stay unchanged."""
    return await fund(channel, scope, amount, operation="RESET", reason=reason, idempotency_key=idempotency_key)


async def repay_debt(
    channel: Channel,
    scope: str,
    amount: Amount,
    *,
    reason: str | None = None,
    idempotency_key: str | None = None,
    **request: Unpack[RequestOptions],
) -> Funding:
    """Repay debt of a budget. An amount beyond the debt is added to the allocation."""
    return await fund(channel, scope, amount, operation="REPAY_DEBT", reason=reason, idempotency_key=idempotency_key)


async def start_period(
    channel: Channel,
    scope: str,
    allocated: Amount,
    *,
    period: str,
    spent: Amount | None = None,
    reason: str | None = None,
    **request: Unpack[RequestOptions],
) -> Funding:
    """Start a new period of a budget: set its allocation, and the spent amount to `spent` or zero.

    Active reservations continue and count in the new period. Debt stays unchanged. The key is made from `period`, so a
    re-run for the same period changes nothing within 24 hours, and the next period is another change.

    Args:
        period: Name of the period, such as ``"2026-05"``.
    """
    _require_period(period)
    return await fund(
        channel, scope, allocated, operation="RESET_SPENT", spent=spent, reason=reason, idempotency_key=period
    )


def _require_period(period: object) -> None:
    if not isinstance(period, str) or not period.strip():
        raise InvalidRequestError(f"period must name the period, such as '2026-05': got {period!r:.80}")


async def start_periods(
    channel: Channel,
    tenant: str,
    allocated: Amount,
    *,
    period: str,
    scope_prefix: str | None = None,
    expected_count: int | None = None,
    **request: Unpack[RequestOptions],
) -> BulkReport:
    """Start a new period of all budgets of a tenant in the unit of `allocated`, with the same allocation for each.

    Args:
        period: Name of the period, such as ``"2026-05"``.
        scope_prefix: Only budgets whose scope begins with this.
        expected_count: Number of budgets that must match; otherwise the server changes nothing. None: counted first.

    Raises:
        BulkActionError: if a row failed; its `report` has all rows. Rows are not one transaction.
    """
    _require_period(period)
    amount = amount_body("allocated", allocated)
    prefix = lowered("scope_prefix", scope_prefix)
    chosen = without_none(tenant_id=tenant, scope_prefix=prefix, unit=amount["unit"])
    if expected_count is None:
        expected_count = await _count(channel, chosen)
    label = f"{tenant}/{prefix or '*'}"
    body = {
        "filter": chosen,
        "action": "RESET_SPENT",
        "amount": amount,
        "expected_count": expected_count,
        "idempotency_key": _bulk_key(period, label, amount["unit"]),
    }
    success = await change(channel, Call("bulkActionBudgets", body=body))
    return report_of(BulkReport.read(success.body, **success.ids))


_LONGEST_BULK_KEY = 128


def _bulk_key(period: str, label: str, unit: str) -> str:
    key = funding_key(period, "RESET_SPENT", label, unit)
    if len(key) <= _LONGEST_BULK_KEY:
        return key
    import hashlib

    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


async def _count(channel: Channel, chosen: Mapping[str, Any]) -> int:
    listed = budgets(
        channel, tenant=chosen["tenant_id"], scope_prefix=chosen.get("scope_prefix"), unit=chosen["unit"], page_size=100
    )
    return len(await listed.all(channel))
