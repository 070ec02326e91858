"""The operations of the ledger.

Each takes the lock, sweeps expired records, checks in the reference server's order, and applies its change in one step.
So a request that gets an error response has changed nothing. See `docs/protocol/server.md#order-of-checks`.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from attrs import evolve

from cycles._core.amounts import Unit
from cycles.embedded import overage, scopes, windows
from cycles.embedded.action_policies import ActionPolicies, counted_keys
from cycles.embedded.clock import Clock
from cycles.embedded.errors import ApiError
from cycles.embedded.idempotency import IdempotencyStore
from cycles.embedded.records import Body, Budget, BudgetWindow, QuotaCounter, Record, Reservation
from cycles.embedded.tables import Tables
from cycles.embedded.tenants import TenantRules

# Used for an explicit null; validation fills in the same number if the member is absent.
DEFAULT_GRACE_MS: Final = 5_000


class Ledger:
    """Budgets, reservations, and stored responses.

    `caller` is the tenant of the API key, or None for the admin key, which reaches the reservations of every tenant.
    """

    def __init__(self, tables: Tables, clock: Clock, *, has_policies: bool = False) -> None:
        self.tables = tables
        self.actions: ActionPolicies = ActionPolicies(tables)
        self._has_policies = has_policies  # protocol 0.1.26
        self.clock = clock
        self._lock = threading.RLock()
        self._idempotency = IdempotencyStore(tables)
        self._tenants = TenantRules(tables)
        self._numbers = max((row.number for row in tables.reservations.values()), default=0)

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Lock the ledger, sweep what is due, and yield the time in milliseconds since the epoch."""
        with self._lock:
            now = self.clock.now_ms()
            while (record := self.tables.overdue(now)) is not None:
                self._expire_or_delete(record)
            yield now

    def close(self) -> None:
        """Close the tables after the operation in progress, if there is one."""
        with self._lock:
            self.tables.close()

    def _expire_or_delete(self, record: Record) -> None:
        if isinstance(record, BudgetWindow):
            self._begin_window(record)
        elif isinstance(record, Reservation) and record.status == "ACTIVE":
            returned = [budget.moved(reserved=-record.reserved) for budget in self._held(record)]
            self.tables.apply(evolve(record, status="EXPIRED"), *returned, *self.actions.returned(record))
        else:
            self.tables.apply(deleted=[record])

    def _begin_window(self, ended: BudgetWindow) -> None:
        """Begin the window of the present time: the spent amount starts at 0, active reservations stay."""
        budget = self.tables.budgets.get(ended.key)
        if budget is None or ended.next_period == "":
            self.tables.apply(deleted=[ended])
            return
        period, timezone = ended.next_period or ended.period, ended.next_timezone or ended.timezone
        ends_ms = windows.end_of(period, timezone, max(self.clock.now_ms(), ended.ends_ms))
        over = budget.is_over_limit and budget.debt > budget.overdraft_limit
        begun = BudgetWindow(scope=ended.scope, unit=ended.unit, period=period, timezone=timezone, ends_ms=ends_ms)
        self.tables.apply(evolve(budget, spent=0, is_over_limit=over), begun)

    # --- decisions -------------------------------------------------------------------------------------------------

    def decide(self, tenant: str, request: Body) -> Body:
        """Return whether a reservation would be allowed. Stores only the response under its key."""
        with self.locked() as now:
            replay = self._idempotency.replay("decide", tenant, request, now)
            if replay is not None:
                return replay
            derived = scopes.derive(request["subject"])
            response = self._evaluate(tenant, derived, request, now)
            response = {"decision": response.pop("decision"), **response, "affected_scopes": list(derived)}
            self.tables.apply(self._idempotency.entry("decide", tenant, request, response, now))
            return response

    def reserve(self, tenant: str, request: Body) -> Body:
        """Reserve budget for an action. With `dry_run`, return the decision only."""
        with self.locked() as now:
            dry_run = request["dry_run"] is True
            policy = None if dry_run else self._tenants.policy(tenant, request)
            observed = not dry_run and self._has_policies and self._tenants.is_observed(tenant, request)
            replay = self._idempotency.replay("reserve", tenant, request, now)
            if replay is not None:
                return replay
            if policy is None or observed:
                return self._dry_run(tenant, request, now, observed=observed)
            return self._hold(tenant, request, policy, now)

    def _dry_run(self, tenant: str, request: Body, now: int, *, observed: bool = False) -> Body:
        derived = scopes.derive(request["subject"])
        estimate = request["estimate"]
        response = self._evaluate(tenant, derived, request, now)
        response |= {"affected_scopes": list(derived), "scope_path": derived[-1]}
        if response["decision"] != "DENY":
            response["reserved"] = dict(estimate)
            response["balances"] = _balances(self._budgeted(derived, estimate["unit"]))
        self.tables.apply(self._idempotency.entry("reserve", tenant, request, response, now, observed=observed))
        return response

    def _evaluate(self, tenant: str, derived: Sequence[str], request: Body, now: int) -> Body:
        """Return the decision with its reason or caps. A wrong unit or a corrupt tenant record is an error response."""
        estimate = request["estimate"]
        try:
            self._tenants.require_open(tenant)
            self._counted(tenant, derived, request, now)
            self._require_budget(derived, estimate)
        except ApiError as error:
            if error.code == "NOT_FOUND":
                return {"decision": "DENY", "reason_code": "BUDGET_NOT_FOUND"}
            if error.status != 409:
                raise
            detail = {"deny_detail": _deny_detail(error)} if self._has_policies else {}
            return {"decision": "DENY", "reason_code": error.code, **detail}
        return self._allowed(derived, estimate["unit"])

    def _counted(self, tenant: str, derived: Sequence[str], request: Body, now: int) -> list[QuotaCounter]:
        """Return the quota counters after this reservation, none before protocol 0.1.26."""
        return self.actions.counted(tenant, derived, request, now) if self._has_policies else []

    def _allowed(self, derived: Sequence[str], unit: str) -> Body:
        deepest = self.tables.budgets.get((derived[-1], unit))
        if deepest is None or deepest.caps is None:
            return {"decision": "ALLOW"}
        return {"decision": "ALLOW_WITH_CAPS", "caps": dict(deepest.caps)}

    # --- leases -------------------------------------------------------------------------------------------------

    def _hold(self, tenant: str, request: Body, policy: str, now: int) -> Body:
        self._tenants.require_open(tenant)
        derived = scopes.derive(request["subject"])
        estimate = request["estimate"]
        counters = self._counted(tenant, derived, request, now)
        budgeted = self._require_budget(derived, estimate)
        held = [budget.moved(reserved=estimate["amount"]) for budget in budgeted]
        row = self._lease(tenant, request, policy, derived, budgeted, now)
        row = evolve(row, counted=counted_keys(counters)) if counters else row
        response = {
            **self._allowed(derived, estimate["unit"]),
            "reservation_id": row.reservation_id,
            "affected_scopes": list(derived),
            "expires_at_ms": row.expires_at_ms,
            "remaining_ttl_ms": row.expires_at_ms - now,
            "scope_path": row.scope_path,
            "reserved": dict(estimate),
            "balances": _balances(held),
        }
        self.tables.apply(
            row, *held, *counters, self._idempotency.entry("reserve", tenant, request, response, now, reservation=row)
        )
        self._numbers = row.number
        return response

    def _lease(
        self,
        tenant: str,
        request: Body,
        policy: str,
        derived: tuple[str, ...],
        budgeted: Sequence[Budget],
        now: int,
    ) -> Reservation:
        """Return the new reservation. Its policy, scopes, grace period and maximum of extensions never change."""
        grace_ms = request["grace_period_ms"]
        return Reservation(
            reservation_id=str(uuid.uuid4()),
            number=self._numbers + 1,
            tenant=tenant,
            idempotency_key=request["idempotency_key"],
            subject=request["subject"],
            action=request["action"],
            unit=request["estimate"]["unit"],
            reserved=request["estimate"]["amount"],
            overage_policy=policy,
            scopes=derived,
            budgeted=tuple(budget.scope for budget in budgeted),
            created_at_ms=now,
            expires_at_ms=now + self._tenants.ttl_ms(tenant, request.get("ttl_ms")),
            grace_period_ms=DEFAULT_GRACE_MS if grace_ms is None else grace_ms,
            max_extensions=self._tenants.max_extensions(tenant),
            metadata=request.get("metadata"),
        )

    def commit(self, caller: str | None, reservation_id: str, request: Body) -> Body:
        """Charge the actual amount and return the rest of the reserved amount to the budgets."""
        with self.locked() as now:
            row = self._owned(caller, reservation_id)
            replay = self._idempotency.replay("commit", reservation_id, request, now)
            if replay is not None:
                return replay
            self._require_active(row)
            actual = request["actual"]
            if actual["unit"] != row.unit:
                raise ApiError(
                    "UNIT_MISMATCH",
                    f"actual is in {actual['unit']}, but the reservation is in {row.unit}; send {row.unit}",
                )
            charge = overage.settle(self._held(row), row.reserved, actual["amount"], row.overage_policy)
            response: Body = {"status": "COMMITTED", "charged": row.amount(charge.amount)}
            if actual["amount"] < row.reserved:
                response["released"] = row.amount(row.reserved - actual["amount"])
            response["balances"] = _balances(charge.budgets)
            metadata = request.get("metadata")
            done = evolve(
                row, status="COMMITTED", finalized_at_ms=now, charged=charge.amount, committed_metadata=metadata
            )
            entry = self._idempotency.entry("commit", reservation_id, request, response, now)
            self.tables.apply(done, *charge.budgets, entry)
            return response

    def release(self, caller: str | None, reservation_id: str, request: Body) -> Body:
        """Return the whole reserved amount to the budgets."""
        with self.locked() as now:
            row = self._owned(caller, reservation_id)
            replay = self._idempotency.replay("release", reservation_id, request, now)
            if replay is not None:
                return replay
            self._require_active(row)
            returned = [budget.moved(reserved=-row.reserved) for budget in self._held(row)]
            response: Body = {
                "status": "RELEASED",
                "released": row.amount(row.reserved),
                "balances": _balances(returned),
            }
            entry = self._idempotency.entry("release", reservation_id, request, response, now)
            counters = self.actions.returned(row)
            self.tables.apply(evolve(row, status="RELEASED", finalized_at_ms=now), *returned, *counters, entry)
            return response

    def extend(self, caller: str | None, reservation_id: str, request: Body) -> Body:
        """Extend an active lease. The new expiry counts from the current one."""
        with self.locked() as now:
            row = self._owned(caller, reservation_id)
            replay = self._idempotency.replay("extend", reservation_id, request, now)
            if replay is not None:
                return replay
            self._require_active(row)
            if now > row.expires_at_ms:  # the grace period is for settlement only
                raise ApiError("RESERVATION_EXPIRED", f"reservation {reservation_id} has expired; reserve again")
            if row.extensions >= row.max_extensions:
                raise ApiError(
                    "MAX_EXTENSIONS_EXCEEDED", f"all {row.max_extensions} extensions are used; reserve again"
                )
            expires_at_ms = row.expires_at_ms + request["extend_by_ms"]
            extended = evolve(row, expires_at_ms=expires_at_ms, extensions=row.extensions + 1)
            response: Body = {
                "status": "ACTIVE",
                "expires_at_ms": expires_at_ms,
                "remaining_ttl_ms": expires_at_ms - now,
                "balances": _balances(self._held(row)),
            }
            entry = self._idempotency.entry("extend", reservation_id, request, response, now, reservation=extended)
            self.tables.apply(extended, entry)
            return response

    def get(self, caller: str | None, reservation_id: str) -> Reservation:
        """Return one reservation.

        Raises:
            ApiError: NOT_FOUND, FORBIDDEN, or RESERVATION_EXPIRED.
        """
        with self.locked():
            row = self._owned(caller, reservation_id)
            if row.status == "EXPIRED":
                raise ApiError("RESERVATION_EXPIRED", f"reservation {reservation_id} has expired; reserve again")
            return row

    # --- direct debits ------------------------------------------------------------------------------------------

    def event(self, tenant: str, request: Body) -> Body:
        """Charge an amount that was spent without a reservation."""
        with self.locked() as now:
            policy = self._tenants.policy(tenant, request)
            replay = self._idempotency.replay("event", tenant, request, now)
            if replay is not None:
                return replay
            self._tenants.require_open(tenant)
            derived = scopes.derive(request["subject"])
            actual = request["actual"]
            budgeted = self._budgeted(derived, actual["unit"])
            for budget in budgeted:
                _require_usable(budget)
                if policy == "REJECT":
                    overage.require_remaining(budget, actual["amount"])
            if not budgeted:
                self._raise_no_budget(derived, actual["unit"])
            charge = overage.charge(budgeted, actual["amount"], policy)
            response: Body = {"status": "APPLIED", "event_id": str(uuid.uuid4())}
            if charge.amount < actual["amount"]:
                response["charged"] = {"unit": actual["unit"], "amount": charge.amount}
            response["balances"] = _balances(charge.budgets)
            entry = self._idempotency.entry("event", tenant, request, response, now)
            action = " ".join(filter(None, (request["action"].get("kind"), request["action"].get("name"))))
            place = {"at_ms": now, "scope_path": derived[-1], "action": action}
            made = {**place, "unit": actual["unit"], "amount": charge.amount}
            self.tables.apply(*charge.budgets, evolve(entry, charge=made))
            return response

    # --- rules shared by the operations -------------------------------------------------------------------------

    def _budgeted(self, derived: Sequence[str], unit: str) -> list[Budget]:
        found = (self.tables.budgets.get((scope, unit)) for scope in derived)
        return [budget for budget in found if budget is not None]

    def _held(self, row: Reservation) -> list[Budget]:
        return self._budgeted(row.budgeted, row.unit)

    def _require_budget(self, derived: Sequence[str], estimate: Body) -> list[Budget]:
        """Return the budgets, each checked completely before the next, shallowest scope first."""
        budgeted = self._budgeted(derived, estimate["unit"])
        for budget in budgeted:
            _require_usable(budget)
            if budget.is_over_limit:
                raise ApiError(
                    "OVERDRAFT_LIMIT_EXCEEDED", f"{budget.scope} is over its limit; fund it or repay its debt"
                )
            if budget.debt > 0 and budget.overdraft_limit == 0:
                raise ApiError("DEBT_OUTSTANDING", f"{budget.scope} has debt and no overdraft limit; repay the debt")
            overage.require_remaining(budget, estimate["amount"])
        if not budgeted:
            self._raise_no_budget(derived, estimate["unit"])
        return budgeted

    def _raise_no_budget(self, derived: Sequence[str], unit: str) -> None:
        for scope in derived:
            units = [other.value for other in Unit if (scope, other.value) in self.tables.budgets]
            if units:
                raise ApiError(
                    "UNIT_MISMATCH",
                    f"{scope} has no budget in {unit}; send one of {', '.join(units)}",
                    details={"scope": scope, "requested_unit": unit, "expected_units": units},
                )
        raise ApiError("NOT_FOUND", f"no budget for {derived[-1]}")

    def _owned(self, caller: str | None, reservation_id: str) -> Reservation:
        row = self.tables.reservations.get((reservation_id,))
        if row is None:
            raise ApiError("NOT_FOUND", f"reservation not found: {reservation_id}")
        if caller is not None and row.tenant != caller:
            raise ApiError("FORBIDDEN", "the reservation belongs to another tenant; send a key of that tenant")
        return row

    def _require_active(self, row: Reservation) -> None:
        # The sweep has run: an active reservation is not past its grace period here.
        self._tenants.require_open(row.tenant)
        if row.status == "EXPIRED":
            raise ApiError("RESERVATION_EXPIRED", f"reservation {row.reservation_id} has expired; reserve again")
        if row.status != "ACTIVE":
            raise ApiError(
                "RESERVATION_FINALIZED", f"reservation {row.reservation_id} is {row.status} already; reserve again"
            )


def _deny_detail(error: ApiError) -> Body:
    detail: Body = (error.details or {}).get("deny_detail") or {"reason_code": error.code}
    return detail


def _require_usable(budget: Budget) -> None:
    if budget.status == "FROZEN":
        raise ApiError("BUDGET_FROZEN", f"the budget of {budget.scope} is frozen; unfreeze it to spend from it")
    if budget.status == "CLOSED":
        raise ApiError("BUDGET_CLOSED", f"the budget of {budget.scope} is closed; a closed budget stays closed")


def _balances(budgets: Sequence[Budget]) -> list[Any]:
    return [budget.balance() for budget in budgets]
