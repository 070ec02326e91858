"""Operations on budgets, except for funding."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Unpack

from cycles._client.call_options import RequestOptions
from cycles._core.amounts import Amount
from cycles._core.messages.outcome import RejectedResponse, Success
from cycles._core.messages.requests import Call, aware, without_none
from cycles._errors import InvalidRequestError, NotFoundError
from cycles._flows.retry import uncertain
from cycles.admin._arguments import lowered, string_map, tenant_filter
from cycles.admin._channel import Channel, checked, failed, once, read
from cycles.admin._pages import Pages, pages
from cycles.admin._scopes import checked_scope, tenant_of
from cycles.admin.results import Budget


def amount_body(name: str, amount: Amount) -> dict[str, Any]:
    """Return an amount as a request member.

    Raises:
        InvalidRequestError: if it is not an `Amount`.
    """
    if not isinstance(amount, Amount):
        raise InvalidRequestError(f"{name} must be an amount such as cycles.usd(100): got {amount!r:.80}")
    return {"unit": str(amount.unit), "amount": amount.amount}


def budget_of(success: Success) -> Budget:
    """Return the budget of a response."""
    return Budget.read(success.body, **success.ids)


async def create_budget(
    channel: Channel,
    scope: str,
    allocated: Amount,
    *,
    overdraft_limit: Amount | None = None,
    overage_policy: str | None = None,
    period: tuple[datetime, datetime] | None = None,
    metadata: Mapping[str, str] | None = None,
    **request: Unpack[RequestOptions],
) -> Budget:
    """Create the budget of a scope in the unit of `allocated`.

    If the outcome of the request is unknown, the budget is read. A budget with the same allocation and nothing spent
    counts as created.

    Args:
        scope: Full path such as ``tenant:acme/agent:bot``. Its first segment is the tenant that owns the budget.
        overdraft_limit: Maximum debt, in the same unit.
        overage_policy: REJECT, ALLOW_IF_AVAILABLE or ALLOW_WITH_OVERDRAFT.
        period: Start and end, as labels: no server starts a period. `start_period` does.
        metadata: Strings that are stored with the budget.

    Raises:
        InvalidRequestError: naming the argument that is wrong; nothing was sent.
        DuplicateResourceError: if the scope has a budget in this unit.
    """
    call = budget_call(
        scope,
        allocated,
        overdraft_limit=overdraft_limit,
        overage_policy=overage_policy,
        period=period,
        metadata=metadata,
    )
    outcome = await checked(channel, call, once)
    if isinstance(outcome, Success):
        return budget_of(outcome)
    if uncertain(outcome):
        found = await untouched(channel, scope, allocated)
        if found is not None:
            return found
    raise failed(outcome, call.operation)


def budget_call(
    scope: str,
    allocated: Amount,
    *,
    overdraft_limit: Amount | None = None,
    overage_policy: str | None = None,
    period: tuple[datetime, datetime] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Call:
    """Return the call that creates a budget.

    Raises:
        InvalidRequestError: naming the argument that is wrong.
    """
    path, amount = checked_scope(scope), amount_body("allocated", allocated)
    if isinstance(overdraft_limit, Amount) and overdraft_limit.unit != allocated.unit:
        raise InvalidRequestError(
            f"overdraft_limit must be in the unit of allocated, {allocated.unit}: got {overdraft_limit}"
        )
    body = {
        "tenant_id": tenant_of(path),
        "scope": path,
        "unit": amount["unit"],
        "allocated": amount,
        **without_none(
            overdraft_limit=None if overdraft_limit is None else amount_body("overdraft_limit", overdraft_limit),
            commit_overage_policy=overage_policy,
            metadata=string_map("metadata", metadata),
        ),
        **({} if period is None else _period(period)),
    }
    return Call("createBudget", body=body)


def _period(period: tuple[datetime, datetime]) -> dict[str, str]:
    try:
        start, end = period
    except (TypeError, ValueError):
        raise InvalidRequestError(f"period must be a pair of datetimes: got {period!r:.80}") from None
    names = {"period_start": start, "period_end": end}
    return {name: aware(name, time).astimezone(UTC).isoformat().replace("+00:00", "Z") for name, time in names.items()}


async def untouched(channel: Channel, scope: str, allocated: Amount) -> Budget | None:
    """Return the budget of a scope if it has this allocation and nothing is spent or reserved; otherwise None."""
    try:
        found = await budget(channel, scope, unit=str(allocated.unit))
    except NotFoundError:
        return None
    used = [amount for amount in (found.spent, found.reserved, found.debt) if amount is not None and amount.amount]
    return found if found.allocated == allocated and not used else None


async def budget(channel: Channel, scope: str, *, unit: str, **request: Unpack[RequestOptions]) -> Budget:
    """Return the budget of a scope in one unit.

    Raises:
        NotFoundError: if there is none.
    """
    return budget_of(await read(channel, Call("lookupBudget", query=_place(scope, unit))))


def _place(scope: str, unit: str) -> dict[str, str]:
    return {"scope": checked_scope(scope), "unit": str(unit)}


def budgets(
    channel: Channel,
    *,
    tenant: str | None = None,
    scope_prefix: str | None = None,
    unit: str | None = None,
    status: str | None = None,
    over_limit: bool | None = None,
    has_debt: bool | None = None,
    utilization_min: float | None = None,
    utilization_max: float | None = None,
    search: str | None = None,
    page_size: int | None = None,
    **request: Unpack[RequestOptions],
) -> Pages[Budget]:
    """Return budgets lazily, page by page. Filters are combined with "and"; an old server ignores unknown ones.

    Args:
        tenant: Only budgets of this tenant; None lists the budgets of all tenants.
        scope_prefix: Only scopes that begin with this.
        status: ACTIVE, FROZEN or CLOSED.
        over_limit: True for budgets with more debt than allowed, False for the others.
        has_debt: True for budgets with debt, False for the others.
        utilization_min: Least used share of the allocation, 0 to 1.
        utilization_max: Largest used share of the allocation, 0 to 1.
        search: Part of the scope, in any case.
        page_size: Entries per request, 1 to 100.
    """
    query = {
        "tenant_id": tenant_filter(tenant),
        "scope_prefix": lowered("scope_prefix", scope_prefix),
        "unit": None if unit is None else str(unit),
        "status": status,
        "over_limit": over_limit,
        "has_debt": has_debt,
        "utilization_min": utilization_min,
        "utilization_max": utilization_max,
        "search": search,
        "limit": page_size,
    }
    return pages(channel, "listBudgets", "ledgers", Budget, query)


async def freeze(
    channel: Channel, scope: str, *, unit: str, reason: str | None = None, **request: Unpack[RequestOptions]
) -> Budget:
    """Freeze a budget: it rejects reservations and funding until it is unfrozen.

    Args:
        reason: Reason for the audit log, at most 512 characters.
    """
    return await _set_state(channel, "freezeBudget", "FROZEN", _place(scope, unit), reason)


async def unfreeze(
    channel: Channel, scope: str, *, unit: str, reason: str | None = None, **request: Unpack[RequestOptions]
) -> Budget:
    """Make a frozen budget active again.

    Args:
        reason: Reason for the audit log, at most 512 characters.
    """
    return await _set_state(channel, "unfreezeBudget", "ACTIVE", _place(scope, unit), reason)


async def _set_state(
    channel: Channel, operation: str, state: str, place: Mapping[str, str], reason: str | None
) -> Budget:
    """Send a change of state, and once more if its outcome is unknown. Then a 409 in the wanted state is a success."""
    call = Call(operation, query=place, body=without_none(reason=reason))
    outcome = await checked(channel, call, once)
    if uncertain(outcome):
        outcome = await channel.send(call)
        if isinstance(outcome, RejectedResponse) and outcome.status == 409:
            found = await budget(channel, place["scope"], unit=place["unit"])
            if found.status == state:
                return found
    if not isinstance(outcome, Success):
        raise failed(outcome, operation)
    return budget_of(outcome)
