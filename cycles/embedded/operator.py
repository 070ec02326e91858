"""What an operator or a test does behind the counter: budgets, tenants, keys. None of it is on the HTTP surface."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final

from attrs import evolve

from cycles._core.amounts import INT64_MAX, Amount, SignedAmount, Unit
from cycles._core.results import Balance
from cycles._errors import InvalidRequestError
from cycles.embedded.ledger import Ledger
from cycles.embedded.records import ApiKey, Budget, Tenant
from cycles.embedded.scopes import leaf, normalise

CAPS: Final = ("max_tokens", "max_steps_remaining", "tool_allowlist", "tool_denylist", "cooldown_ms")


class Operator:
    """`server.ledger`. Scopes are written ``tenant:acme/agent:bot``; their values are lower-cased.

    Every method is one step of its own, safe to call from any thread while the server works.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._tables = ledger.tables

    # --- budgets ------------------------------------------------------------------------------------------------

    def set_budget(
        self,
        scope: str,
        allocated: Amount,
        *,
        overdraft_limit: int = 0,
        debt: int = 0,
        spent: int = 0,
        reserved: int = 0,
        status: str | None = "ACTIVE",
        is_over_limit: bool = False,
        caps: Mapping[str, Any] | None = None,
    ) -> None:
        """Create or replace the budget of a scope in the unit of `allocated`.

        Args:
            allocated: What the scope may spend; what remains follows from it and from the other numbers.
            overdraft_limit: How much debt it may make, in the same unit, like the numbers that follow.
            reserved: What is held; never less than what live reservations hold here, they keep it.
            status: ACTIVE, FROZEN or CLOSED.
            caps: Limits that answers carry for this scope; None for none, an empty mapping for caps that say nothing.

        Raises:
            InvalidRequestError: (a ValueError) for a number below zero or outside int64, or an unknown cap.
        """
        path, unit = _scope(scope), Unit(allocated.unit).value
        unknown = sorted(set(caps or ()) - set(CAPS))
        if unknown:
            raise InvalidRequestError(f"caps.{unknown[0]}: no such cap; there are {', '.join(CAPS)}")
        with self._ledger.locked():
            budget = Budget(
                scope=path,
                unit=unit,
                allocated=allocated.amount,
                reserved=max(reserved, self._held(path, unit)) if reserved >= 0 else reserved,
                spent=spent,
                debt=debt,
                overdraft_limit=overdraft_limit,
                is_over_limit=is_over_limit,
                status=status,
                caps=None if caps is None else {name: value for name, value in caps.items() if value is not None},
            )
            self._keep(budget)

    def _held(self, scope: str, unit: str) -> int:
        return sum(
            row.reserved
            for row in self._tables.reservations.values()
            if row.status == "ACTIVE" and row.unit == unit and scope in row.budgeted
        )

    def _keep(self, budget: Budget) -> None:
        if not budget.fits() or min(budget.reserved, budget.spent, budget.debt, budget.overdraft_limit) < 0:
            raise InvalidRequestError(f"the numbers of {budget.scope} must be from 0 to {INT64_MAX}")
        self._tables.apply(budget)

    def fund(self, scope: str, amount: Amount) -> None:
        """Add money: debt is repaid first, the rest is allocated; debt within its limit clears the over-limit mark.

        Raises:
            KeyError: if the scope has no budget in the unit of the amount.
        """
        with self._ledger.locked():
            budget = self._find(scope, str(amount.unit))
            repaid = min(budget.debt, amount.amount)
            funded = evolve(budget, debt=budget.debt - repaid, allocated=budget.allocated + amount.amount - repaid)
            over = funded.is_over_limit and funded.debt > funded.overdraft_limit
            self._keep(evolve(funded, is_over_limit=over))

    def delete_budget(self, scope: str, unit: str | None = None) -> None:
        """Forget the budget of a scope in one unit, or in every unit; nothing happens if there is none."""
        path = _scope(scope)
        with self._ledger.locked():
            deleted = [b for b in self._tables.budgets.values() if b.scope == path and unit in (None, b.unit)]
            self._tables.apply(deleted=deleted)

    def balance(self, scope: str, unit: str | None = None) -> Balance:
        """The budget of a scope now, with every field filled. `unit` may be left out where there is only one.

        Raises:
            KeyError: if the scope has no budget (in that unit).
            ValueError: if it has budgets in several units and none was named.
        """
        with self._ledger.locked():
            return _balance(self._find(scope, unit))

    def _find(self, scope: str, unit: str | None) -> Budget:
        path = _scope(scope)
        found = [b for b in self._tables.budgets.values() if b.scope == path and unit in (None, b.unit)]
        if not found:
            raise KeyError(f"no budget for {path}" + (f" in {unit}" if unit else ""))
        if len(found) > 1:
            raise InvalidRequestError(f"{path} has budgets in {', '.join(b.unit for b in found)}; name one with unit=")
        return found[0]

    # --- tenants ------------------------------------------------------------------------------------------------

    def set_tenant(
        self,
        tenant: str,
        *,
        status: Any = "ACTIVE",
        default_commit_overage_policy: str | None = None,
        default_reservation_ttl_ms: int | None = None,
        max_reservation_ttl_ms: int | None = None,
        max_reservation_extensions: int | None = None,
    ) -> None:
        """Create or replace a tenant's record, as given: a status that is no status makes a record nobody can read.

        Args:
            status: ACTIVE, SUSPENDED (no key of the tenant works) or CLOSED.
            default_commit_overage_policy: For requests that name none.
            default_reservation_ttl_ms: Lifetime for requests that name none, in milliseconds.
            max_reservation_ttl_ms: The longest lifetime that is granted, in milliseconds.
            max_reservation_extensions: How often a reservation made from now on may be extended.
        """
        record = Tenant(
            name=tenant,
            status=status,
            default_commit_overage_policy=default_commit_overage_policy,
            default_reservation_ttl_ms=default_reservation_ttl_ms,
            max_reservation_ttl_ms=max_reservation_ttl_ms,
            max_reservation_extensions=max_reservation_extensions,
        )
        with self._ledger.locked():
            self._tables.apply(record)

    def delete_tenant(self, tenant: str) -> None:
        """Forget a tenant's record; a tenant without one is not restricted. Nothing happens if there is none."""
        with self._ledger.locked():
            record = self._tables.tenants.get((tenant,))
            if record is not None:
                self._tables.apply(deleted=[record])

    # --- keys ---------------------------------------------------------------------------------------------------

    def set_api_key(
        self, key: str, *, tenant: str | None, status: Any = "ACTIVE", expires_at_ms: int | None = None
    ) -> None:
        """Create or replace an API key, as given.

        Args:
            status: ACTIVE, REVOKED or EXPIRED.
            expires_at_ms: The last moment at which it works, in milliseconds since the epoch.
        """
        with self._ledger.locked():
            known = self._tables.api_keys.get((key,))
            minted = known is not None and known.minted
            self._tables.apply(
                ApiKey(secret=key, tenant=tenant, status=status, expires_at_ms=expires_at_ms, minted=minted)
            )

    def api_key_for(self, tenant: str) -> str:
        """The server's own key of a tenant, made at the first call and the same from then on."""
        with self._ledger.locked():
            for record in self._tables.api_keys.values():
                if record.minted and record.tenant == tenant:
                    return record.secret
            record = ApiKey(secret=f"cyc_live_{secrets.token_hex(20)}", tenant=tenant, minted=True)
            self._tables.apply(record)
            return record.secret

    # --- looking around -----------------------------------------------------------------------------------------

    def scopes(self) -> list[str]:
        """Every scope that has a budget, oldest first."""
        with self._ledger.locked():
            return list(dict.fromkeys(budget.scope for budget in self._tables.budgets.values()))

    def tenants(self) -> list[str]:
        """The tenants that budgets name, oldest first, in lower case as scopes are."""
        outermost = (scope.partition("/")[0].partition(":") for scope in self.scopes())
        return list(dict.fromkeys(value for level, _, value in outermost if level == "tenant"))

    def active_reservations(self) -> list[str]:
        """The ids of the reservations that hold budget now."""
        with self._ledger.locked():
            return [row.reservation_id for row in self._tables.reservations.values() if row.status == "ACTIVE"]


def _scope(scope: str) -> str:
    try:
        return normalise(scope)
    except ValueError as wrong:
        raise InvalidRequestError(str(wrong)) from None


def _balance(budget: Budget) -> Balance:
    unit = Unit(budget.unit)
    return Balance(
        scope=leaf(budget.scope),
        scope_path=budget.scope,
        remaining=SignedAmount(unit, budget.remaining),
        reserved=Amount(unit, budget.reserved),
        spent=Amount(unit, budget.spent),
        debt=Amount(unit, budget.debt),
        allocated=Amount(unit, budget.allocated),
        overdraft_limit=Amount(unit, budget.overdraft_limit),
        is_over_limit=budget.is_over_limit,
    )
