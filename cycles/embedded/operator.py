"""Set budgets, tenants and keys directly in the ledger, for operators and tests. HTTP does not offer this."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from attrs import evolve

from cycles._core.amounts import INT64_MAX, Amount, SignedAmount, Unit
from cycles._core.results import Balance
from cycles._errors import InvalidRequestError
from cycles.embedded.forecast import Forecast, Pace, forecasts
from cycles.embedded.ledger import Ledger
from cycles.embedded.operator_policies import PolicyOperator
from cycles.embedded.records import ApiKey, Budget, BudgetWindow, Record, Reservation, StoredResponse, Tenant
from cycles.embedded.scopes import leaf, normalise
from cycles.embedded.windows import Window, end_of

CAPS: Final = ("max_tokens", "max_steps_remaining", "tool_allowlist", "tool_denylist", "cooldown_ms")


class Operator(PolicyOperator):
    """`server.ledger`. Scopes are written ``tenant:acme/agent:bot``; their values are lower-cased.

    Every method is one atomic step, and any thread may call it while the server handles requests.
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
            allocated: The budget; the remaining amount is computed from it and the other numbers.
            overdraft_limit: Maximum debt, in the unit of `allocated`, like the numbers below.
            reserved: Reserved amount; at least the sum of the active reservations on this budget.
            status: ACTIVE, FROZEN or CLOSED.
            caps: Caps that responses include for this scope. None: no caps. An empty mapping: caps without members.

        Raises:
            InvalidRequestError: (a ValueError) for a number below zero or outside int64, or an unknown cap.
        """
        path, unit = normalise(scope), Unit(allocated.unit).value
        unknown = sorted(set(caps or ()) - set(CAPS))
        if unknown:
            raise InvalidRequestError(f"unknown cap: {unknown[0]!r:.80}; use {', '.join(CAPS)}")
        with self._ledger.locked():
            budget = Budget(
                scope=path,
                unit=unit,
                allocated=allocated.amount,
                reserved=max(reserved, self._reserved(path, unit)) if reserved >= 0 else reserved,
                spent=spent,
                debt=debt,
                overdraft_limit=overdraft_limit,
                is_over_limit=is_over_limit,
                status=status,
                caps=None if caps is None else {name: value for name, value in caps.items() if value is not None},
            )
            self._save(budget)

    def _reserved(self, scope: str, unit: str) -> int:
        return sum(
            row.reserved
            for row in self._tables.reservations.values()
            if row.status == "ACTIVE" and row.unit == unit and scope in row.budgeted
        )

    def _save(self, budget: Budget) -> None:
        if not budget.fits() or min(budget.reserved, budget.spent, budget.debt, budget.overdraft_limit) < 0:
            raise InvalidRequestError(f"a number of {budget.scope} is out of range; use 0 to {INT64_MAX}")
        self._tables.apply(budget)

    def fund(self, scope: str, amount: Amount) -> None:
        """Add budget: debt is repaid first, the rest is allocated. Debt within its limit clears `is_over_limit`.

        Raises:
            KeyError: if the scope has no budget in the unit of the amount.
        """
        with self._ledger.locked():
            budget = self._find(scope, str(amount.unit))
            repaid = min(budget.debt, amount.amount)
            funded = evolve(budget, debt=budget.debt - repaid, allocated=budget.allocated + amount.amount - repaid)
            over = funded.is_over_limit and funded.debt > funded.overdraft_limit
            self._save(evolve(funded, is_over_limit=over))

    def set_allocated(self, scope: str, allocated: Amount) -> None:
        """Set what is allocated to a scope. Spent amount, debt, limits and status stay; without a budget, make one."""
        path, unit = normalise(scope), Unit(allocated.unit).value
        with self._ledger.locked():
            budget = self._tables.budgets.get((path, unit))
            if budget is None:
                self.set_budget(path, allocated)
            else:
                self._save(evolve(budget, allocated=allocated.amount))

    def set_window(self, scope: str, window: Window | None, unit: str = "USD_MICROCENTS") -> None:
        """Let a budget begin again at each edge of a window. One that has another window gets this one at its edge.

        Args:
            window: Its amount is not used; None: the present window is the last one, and its spent amount stays.

        Raises:
            KeyError: if the scope has no budget in that unit.
        """
        with self._ledger.locked() as now_ms:
            budget = self._find(scope, unit)
            known = self._tables.windows.get(budget.key)
            if known is not None:
                period, timezone = ("", None) if window is None else (window.period, window.timezone)
                if (period, timezone) == (known.period, known.timezone):
                    self._tables.apply(evolve(known, next_period=None, next_timezone=None))
                else:
                    self._tables.apply(evolve(known, next_period=period, next_timezone=timezone))
            elif window is not None:
                ends_ms = end_of(window.period, window.timezone, now_ms)
                place: dict[str, Any] = {"scope": budget.scope, "unit": budget.unit, "timezone": window.timezone}
                self._tables.apply(BudgetWindow(**place, period=window.period, ends_ms=ends_ms))

    def window(self, scope: str, unit: str = "USD_MICROCENTS") -> BudgetWindow | None:
        """Return the present window of a budget; None if it has none."""
        with self._ledger.locked():
            return self._tables.windows.get((normalise(scope), unit))

    def reset_spent(self) -> None:
        """Set what was spent and owed to 0, in all budgets. What reservations hold stays."""
        with self._ledger.locked():
            budgets = self._tables.budgets.values()
            self._tables.apply(*[evolve(each, spent=0, debt=0, is_over_limit=False) for each in budgets])

    def set_status(self, scope: str, status: str, unit: str | None = None) -> None:
        """Set the status of a budget: ACTIVE, FROZEN or CLOSED. `unit` may be omitted if the scope has one budget.

        Raises:
            KeyError: if the scope has no budget (in that unit).
            InvalidRequestError: (a ValueError) if the scope has budgets in several units and `unit` is None.
        """
        with self._ledger.locked():
            self._tables.apply(evolve(self._find(scope, unit), status=status))

    def delete_budget(self, scope: str, unit: str | None = None) -> None:
        """Delete the budget of a scope in one unit, or in every unit. A scope without one is no error."""
        path = normalise(scope)
        with self._ledger.locked():
            deleted = [b for b in self._tables.budgets.values() if b.scope == path and unit in (None, b.unit)]
            windows = [self._tables.windows[b.key] for b in deleted if b.key in self._tables.windows]
            self._tables.apply(deleted=[*deleted, *windows])

    def balance(self, scope: str, unit: str | None = None) -> Balance:
        """Return the budget of a scope with every field filled. `unit` may be omitted if the scope has one budget.

        Raises:
            KeyError: if the scope has no budget (in that unit).
            ValueError: if the scope has budgets in several units and `unit` is None.
        """
        with self._ledger.locked():
            return _balance(self._find(scope, unit))

    def _find(self, scope: str, unit: str | None) -> Budget:
        path = normalise(scope)
        found = [b for b in self._tables.budgets.values() if b.scope == path and unit in (None, b.unit)]
        if not found:
            raise KeyError(f"no budget for {path}{f' in {unit}' if unit else ''}; set_budget() creates one")
        if len(found) > 1:
            raise InvalidRequestError(f"{path} has budgets in {', '.join(b.unit for b in found)}; pass unit=")
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
        observe_mode: str | None = None,
    ) -> None:
        """Create or replace a tenant's record, unchecked: an unknown status makes a corrupt record.

        Args:
            status: ACTIVE, SUSPENDED (every key of the tenant gets 401) or CLOSED.
            default_commit_overage_policy: Used for requests without a policy.
            default_reservation_ttl_ms: Lifetime for requests without one, in milliseconds.
            max_reservation_ttl_ms: Longest granted lifetime, in milliseconds.
            max_reservation_extensions: Maximum number of extensions of a new reservation.
            observe_mode: ``"OBSERVE"`` only observes live reservations (protocol 0.1.26).
        """
        record = Tenant(
            name=tenant,
            status=status,
            default_commit_overage_policy=default_commit_overage_policy,
            default_reservation_ttl_ms=default_reservation_ttl_ms,
            max_reservation_ttl_ms=max_reservation_ttl_ms,
            max_reservation_extensions=max_reservation_extensions,
            observe_mode=observe_mode,
        )
        with self._ledger.locked():
            self._tables.apply(record)

    def delete_tenant(self, tenant: str) -> None:
        """Delete a tenant's record, which lifts its restrictions. A tenant without one is no error."""
        with self._ledger.locked():
            record = self._tables.tenants.get((tenant,))
            if record is not None:
                self._tables.apply(deleted=[record])

    # --- keys ---------------------------------------------------------------------------------------------------

    def set_api_key(
        self, key: str, *, tenant: str | None, status: Any = "ACTIVE", expires_at_ms: int | None = None
    ) -> None:
        """Create or replace an API key, unchecked.

        Args:
            status: ACTIVE, REVOKED or EXPIRED.
            expires_at_ms: Last moment at which the key works, in milliseconds since the epoch.
        """
        with self._ledger.locked():
            known = self._tables.api_keys.get((key,))
            minted = known is not None and known.minted
            self._tables.apply(
                ApiKey(secret=key, tenant=tenant, status=status, expires_at_ms=expires_at_ms, minted=minted)
            )

    def api_key_for(self, tenant: str) -> str:
        """Return the server's own key of a tenant. The first call creates it; later calls return the same key."""
        with self._ledger.locked():
            for record in self._tables.api_keys.values():
                if record.minted and record.tenant == tenant:
                    return record.secret
            record = ApiKey(secret=f"cyc_live_{secrets.token_hex(20)}", tenant=tenant, minted=True)
            self._tables.apply(record)
            return record.secret

    # --- reading -----------------------------------------------------------------------------------------

    def scopes(self) -> list[str]:
        """Return every scope that has a budget, oldest first."""
        with self._ledger.locked():
            return list(dict.fromkeys(budget.scope for budget in self._tables.budgets.values()))

    def tenants(self) -> list[str]:
        """Return the tenants of all budgets, oldest first, in lower case like the scopes."""
        outermost = (scope.partition("/")[0].partition(":") for scope in self.scopes())
        return list(dict.fromkeys(value for level, _, value in outermost if level == "tenant"))

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Lock the ledger, sweep what is due, and yield its time in milliseconds since the epoch."""
        with self._ledger.locked() as now_ms:
            yield now_ms

    def observe(self, observer: Callable[[list[tuple[Record | None, Record | None]]], None]) -> None:
        """Call `observer` with the records before and after each change, while the ledger is locked."""
        self._tables.observers.append(observer)

    def records(self) -> tuple[list[Budget], list[Reservation], list[StoredResponse]]:
        """Return budgets, reservations and stored responses, each in the order in which they were first saved."""
        with self._ledger.locked():
            tables = self._tables
            return list(tables.budgets.values()), self.reservations(), list(tables.responses.values())

    def reservations(self) -> list[Reservation]:
        """Return the records of all reservations in the order in which they were first saved."""
        with self._ledger.locked():
            return list(self._tables.reservations.values())

    def forecasts(self) -> list[Forecast]:
        """Return when budgets are used up at the pace of their last commits, by the clock of the ledger."""
        with self._ledger.locked() as now_ms:
            budgets, rows = list(self._tables.budgets.values()), list(self._tables.reservations.values())
            windows = dict(self._tables.windows)
        pace = Pace(now_ms)
        for row in rows:
            if row.charged is not None:
                pace.add(row.budgeted, row.unit, row.finalized_at_ms, row.charged)
        return forecasts(pace, budgets, windows)

    def budgets_of(self, scopes: Sequence[str], unit: str) -> tuple[Budget, ...]:
        """Return the records of the budgets of some scopes in one unit, without the lock."""
        found = (self._tables.budgets.get((scope, unit)) for scope in scopes)
        return tuple(budget for budget in found if budget is not None)

    def api_keys(self) -> list[str]:
        """Return every API key, for code that must not show one."""
        with self._ledger.locked():
            return [record.secret for record in self._tables.api_keys.values()]

    def active_reservations(self) -> list[str]:
        """Return the ids of the active reservations."""
        with self._ledger.locked():
            return [row.reservation_id for row in self._tables.reservations.values() if row.status == "ACTIVE"]


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
