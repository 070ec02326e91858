"""Tenants, budgets and keys as the admin operations show them: the records of the ledger and their `AdminInfo`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import evolve, frozen

from cycles.embedded.errors import ApiError
from cycles.embedded.idempotency import digest
from cycles.embedded.ledger import Ledger
from cycles.embedded.records import AdminInfo, ApiKey, Body, Budget, StoredResponse, Tenant
from cycles.embedded.tenants import DEFAULT_POLICY, DEFAULT_TTL_MS, MAX_EXTENSIONS, MAX_TTL_MS
from cycles.embedded.webhook_events import timestamp

_NEVER: Final = "9999-12-31T23:59:59.000Z"  # a key that a test made does not expire


@frozen
class AdminCall:
    """One call of an admin operation. `tenant` is that of a tenant's key, or None for the admin key."""

    tenant: str | None
    path_id: str
    query: Mapping[str, str]
    form: Body
    now_ms: int

    @property
    def now(self) -> str:
        """Return the time of the call, as ISO 8601."""
        return timestamp(self.now_ms)


@frozen
class Result:
    """Result of a call, and what it is about for the audit log."""

    status: int
    body: Body | None
    tenant: str | None = None
    resource: tuple[str, str] | None = None
    audit: Body | None = None


class AdminState:
    """Access to the records of a ledger. The caller holds the ledger's lock."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.tables: Final = ledger.tables

    # --- members that only admin operations use -----------------------------------------------------------------

    def info(self, about: str, name: str) -> Body:
        """Return these members of an object; empty if it has none."""
        record = self.tables.admin_info.get((about, name))
        return {} if record is None else record.values

    def with_info(self, about: str, name: str, /, **members: Any) -> AdminInfo:
        """Return the record with some members changed. None removes a member."""
        values = {**self.info(about, name), **members}
        return AdminInfo(
            about=about, name=name, values={key: value for key, value in values.items() if value is not None}
        )

    def stored_response(self, operation: str, key: str, call: AdminCall) -> Body | None:
        """Return the response that an idempotency key has. As on the reference server, only the bodies are compared.

        Raises:
            ApiError: IDEMPOTENCY_MISMATCH: the key was used with another body.
        """
        known = self.tables.responses.get((operation, "", key))
        if known is None:
            return None
        if known.digest != digest(call.form):
            raise ApiError("IDEMPOTENCY_MISMATCH", "the idempotency key was used with another body; send a new key")
        return known.response

    def store_response(self, operation: str, key: str, call: AdminCall, body: Body, lifetime_ms: int) -> None:
        """Store the response to a request with an idempotency key."""
        stored: dict[str, Any] = {"operation": operation, "owner": "", "idempotency_key": key}
        stored |= {"digest": digest(call.form), "until_ms": call.now_ms + lifetime_ms}
        self.tables.apply(StoredResponse(**stored, response=body))

    # --- tenants ------------------------------------------------------------------------------------------------

    def tenant_ids(self) -> list[str]:
        """Return the ids of all tenants: those with a record, and those that only have budgets or keys."""
        found = dict.fromkeys(name for (name,) in self.tables.tenants)
        found |= dict.fromkeys(name for about, name in self.tables.admin_info if about == "tenant")
        found |= dict.fromkeys(scope.partition("/")[0].partition(":")[2] for scope, _ in self.tables.budgets)
        found |= dict.fromkeys(key.tenant for key in self.tables.api_keys.values() if key.tenant)
        return list(found)

    def tenant_record(self, tenant_id: str) -> Tenant:
        """Return the record of a tenant, with defaults if it has none."""
        return self.tables.tenants.get((tenant_id,)) or Tenant(name=tenant_id)

    def tenant_body(self, tenant_id: str) -> Body:
        """Return a tenant as responses show it."""
        record, info = self.tenant_record(tenant_id), self.info("tenant", tenant_id)

        def either(value: Any, default: Any) -> Any:
            return default if value is None else value

        return {
            "tenant_id": tenant_id,
            "name": info.get("name", tenant_id),
            "status": record.status,
            "default_commit_overage_policy": either(record.default_commit_overage_policy, DEFAULT_POLICY),
            "default_reservation_ttl_ms": either(record.default_reservation_ttl_ms, DEFAULT_TTL_MS),
            "max_reservation_ttl_ms": either(record.max_reservation_ttl_ms, MAX_TTL_MS),
            "max_reservation_extensions": either(record.max_reservation_extensions, MAX_EXTENSIONS),
            **{name: value for name, value in info.items() if name != "name"},
        }

    def require_tenant(self, tenant_id: str, *, active: bool = False) -> None:
        """Raise TENANT_NOT_FOUND, TENANT_CLOSED, or, with `active`, INVALID_REQUEST for a suspended tenant."""
        if tenant_id not in self.tenant_ids():
            raise ApiError("TENANT_NOT_FOUND", f"tenant not found: {tenant_id}", status=404)
        status = self.tenant_record(tenant_id).status
        if status == "CLOSED":
            raise ApiError("TENANT_CLOSED", f"tenant {tenant_id} is closed; what it owns cannot be changed")
        if active and status != "ACTIVE":
            raise ApiError("INVALID_REQUEST", f"tenant {tenant_id} is {status}; reactivate it first")

    # --- budgets ------------------------------------------------------------------------------------------------

    def budget(self, scope: str, unit: str) -> Budget:
        """Return a budget, or raise BUDGET_NOT_FOUND."""
        budget = self.tables.budgets.get((scope, unit))
        if budget is None:
            raise ApiError("BUDGET_NOT_FOUND", f"{scope} has no budget in {unit}; create one first", status=404)
        return budget

    def budgets_of(self, tenant_id: str | None) -> Iterator[Budget]:
        """Return the budgets of a tenant, or all of them."""
        for budget in self.tables.budgets.values():
            if tenant_id is None or budget.scope.partition("/")[0] == f"tenant:{tenant_id.lower()}":
                yield budget

    def budget_body(self, budget: Budget) -> Body:
        """Return a budget as responses show it."""
        info = self.info("budget", budget_name(budget))
        return {
            "ledger_id": ledger_id(budget),
            "tenant_id": owner_of(budget),
            "scope": budget.scope,
            "unit": budget.unit,
            **{
                name: budget.amount(getattr(budget, name))
                for name in ("allocated", "remaining", "reserved", "spent", "debt", "overdraft_limit")
            },
            "is_over_limit": budget.is_over_limit,
            "status": budget.status or "ACTIVE",
            **info,
        }

    def save_budget(self, budget: Budget, now: str, **members: Any) -> Body:
        """Save a changed budget and its members, and return it as responses show it."""
        if not budget.fits():
            raise ApiError(
                "INTERNAL_ERROR", f"a number of {budget.scope} would no longer fit into 64 bits; nothing was changed"
            )
        budget = evolve(budget, is_over_limit=budget.debt > budget.overdraft_limit)
        self.tables.apply(budget, self.with_info("budget", budget_name(budget), updated_at=now, **members))
        return self.budget_body(budget)

    # --- keys ---------------------------------------------------------------------------------------------------

    def key_of(self, key_id: str) -> ApiKey:
        """Return the API key with an id, or raise NOT_FOUND."""
        for key in self.tables.api_keys.values():
            if key.key_id == key_id:
                return key
        raise ApiError("NOT_FOUND", f"API key not found: {key_id[:60]}")

    def key_body(self, key: ApiKey) -> Body:
        """Return an API key as responses show it, without its secret."""
        return {
            "key_id": key.key_id,
            "tenant_id": key.tenant or "",
            "key_prefix": key.secret[:14],
            "status": key.status,
            "created_at": timestamp(0),
            "expires_at": _NEVER if key.expires_at_ms is None else timestamp(key.expires_at_ms),
            **self.info("api_key", key.key_id),
        }

    def permissions_of(self, secret: str) -> list[str] | None:
        """Return the permissions of a key; None for a key without any, which may do everything."""
        key = self.tables.api_keys.get((secret,))
        return None if key is None else self.info("api_key", key.key_id).get("permissions")


def budget_name(budget: Budget) -> str:
    """Return the name of a budget: its scope and unit."""
    return f"{budget.scope}:{budget.unit}"


def owner_of(budget: Budget) -> str:
    """Return the tenant of a budget: the first segment of its scope."""
    return budget.scope.partition("/")[0].partition(":")[2]


def ledger_id(budget: Budget) -> str:
    """Return the id of a budget. It follows from scope and unit, so a budget that a test made has one too."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, budget_name(budget)))
