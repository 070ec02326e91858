"""The overage arithmetic: the amount that is charged if the actual is more than the reserved amount. Pure numbers.

Every budgeted scope is charged the same amount. `remaining` does not include the reservation's own reserved amount.
See `docs/protocol/server.md#overage`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen

from cycles._core.amounts import SignedAmount
from cycles.embedded.errors import ApiError
from cycles.embedded.records import Budget

POLICIES = ("REJECT", "ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT")


@frozen
class Charge:
    """The charged amount, in the unit of the budgets, and the budgets after the charge."""

    amount: int
    budgets: list[Budget]


def settle(budgets: Sequence[Budget], held: int, actual: int, policy: str) -> Charge:
    """Charge `actual` against the reserved amount `held`. A rest is released; an excess follows the policy.

    Raises:
        ApiError: BUDGET_EXCEEDED or OVERDRAFT_LIMIT_EXCEEDED; then nothing is charged.
    """
    if actual <= held:
        return Charge(actual, [budget.moved(reserved=-held, spent=actual) for budget in budgets])
    if policy == "REJECT":
        raise ApiError(
            "BUDGET_EXCEEDED",
            "actual is more than the reserved amount, and the overage policy is REJECT; commit at most that amount",
        )
    extra = charge(budgets, actual - held, policy)
    return Charge(held + extra.amount, [budget.moved(reserved=-held, spent=held) for budget in extra.budgets])


def charge(budgets: Sequence[Budget], wanted: int, policy: str) -> Charge:
    """Charge an amount that is not reserved. REJECT requires the full amount in every scope.

    Raises:
        ApiError: BUDGET_EXCEEDED or OVERDRAFT_LIMIT_EXCEEDED; then nothing is charged.
    """
    if policy == "ALLOW_WITH_OVERDRAFT":
        return _with_overdraft(budgets, wanted)
    if policy == "REJECT":
        for budget in budgets:
            require_remaining(budget, wanted)
        return Charge(wanted, [budget.moved(spent=wanted) for budget in budgets])
    return _if_available(budgets, wanted)


def require_remaining(budget: Budget, wanted: int) -> None:
    """Raise BUDGET_EXCEEDED if less than `wanted` remains."""
    if budget.remaining < wanted:
        left, needed = SignedAmount(budget.unit, budget.remaining), SignedAmount(budget.unit, wanted)
        message = f"the budget is too small: {budget.scope} has {left} left, and {needed} is needed"
        raise ApiError("BUDGET_EXCEEDED", message)


def _if_available(budgets: Sequence[Budget], wanted: int) -> Charge:
    amount = _capped(wanted, budgets)
    capped = amount < wanted
    return Charge(
        amount,
        [budget.moved(spent=amount, over_limit=capped and budget.remaining < wanted) for budget in budgets],
    )


def _with_overdraft(budgets: Sequence[Budget], wanted: int) -> Charge:
    # A scope without an overdraft limit caps the charge of all scopes; the others need debt for the capped charge only.
    amount = _capped(wanted, (budget for budget in budgets if budget.overdraft_limit == 0))
    for budget in budgets:
        needs_debt = budget.overdraft_limit > 0 and budget.remaining < amount
        if needs_debt and budget.debt + _deficit(budget, amount) > budget.overdraft_limit:
            raise ApiError(
                "OVERDRAFT_LIMIT_EXCEEDED",
                "the debt would exceed the overdraft limit; fund the budget or raise the limit",
            )
    capped = amount < wanted
    return Charge(amount, [_overdrawn(budget, amount, wanted, capped) for budget in budgets])


def _overdrawn(budget: Budget, amount: int, wanted: int, capped: bool) -> Budget:
    debt = _deficit(budget, amount)
    over_limit = capped and budget.overdraft_limit == 0 and budget.remaining < wanted
    return budget.moved(spent=amount - debt, debt=debt, over_limit=over_limit)


def _deficit(budget: Budget, amount: int) -> int:
    return max(0, amount - max(budget.remaining, 0))


def _capped(wanted: int, budgets: Iterable[Budget]) -> int:
    return min((min(wanted, max(budget.remaining, 0)) for budget in budgets), default=wanted)
