"""The records of the ledger: small frozen values, each with a kind and a key, each one row of a store.

A change creates a new record. Nothing is edited in place, so an operation that fails half-way has changed nothing.
"""

from __future__ import annotations

import uuid
from typing import Any, ClassVar, Final, Self, TypeAlias

from attrs import evolve, fields_dict, frozen

from cycles._core.amounts import INT64_MAX
from cycles.embedded.errors import ApiError
from cycles.embedded.scopes import leaf

INT64_MIN: Final = -(2**63)
DAY_MS: Final = 24 * 60 * 60 * 1000
# Finalized and expired reservations are deleted after this time.
RETENTION_MS: Final = 30 * DAY_MS

Body: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[str, ...]


class Record:
    """Base class of all records. A record is swept when the clock is past its `due_ms`; None means never."""

    __slots__ = ()
    kind: ClassVar[str]

    @property
    def key(self) -> Key:
        """Return the key, unique among the records of a kind."""
        raise NotImplementedError

    @property
    def due_ms(self) -> int | None:
        """Return the last moment at which the record is unchanged, or None."""
        return None

    def to_json(self) -> Body:
        """Return the record as JSON values."""
        return {name: getattr(self, name) for name in fields_dict(type(self))}  # type: ignore[arg-type]

    @classmethod
    def from_json(cls, values: Body) -> Self:
        """Return the record that `values` describes."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


@frozen(kw_only=True)
class Budget(Record):
    """The budget of a scope in one unit. `remaining` is computed from the other numbers."""

    kind: ClassVar[str] = "budget"

    scope: str
    unit: str
    allocated: int
    reserved: int = 0
    spent: int = 0
    debt: int = 0
    overdraft_limit: int = 0
    is_over_limit: bool = False
    status: str | None = "ACTIVE"
    caps: Body | None = None

    @property
    def key(self) -> Key:
        """Return scope and unit."""
        return (self.scope, self.unit)

    @property
    def remaining(self) -> int:
        """Return allocated - spent - reserved - debt, which may be negative."""
        return self.allocated - self.spent - self.reserved - self.debt

    def moved(self, *, reserved: int = 0, spent: int = 0, debt: int = 0, over_limit: bool = False) -> Budget:
        """Return this budget with the differences added, and with `is_over_limit` set if `over_limit`.

        Raises:
            ApiError: INTERNAL_ERROR if a number no longer fits into a signed 64-bit integer.
        """
        after = evolve(
            self,
            reserved=self.reserved + reserved,
            spent=self.spent + spent,
            debt=self.debt + debt,
            is_over_limit=self.is_over_limit or over_limit,
        )
        if not after.fits():
            raise ApiError(
                "INTERNAL_ERROR", f"a number of {self.scope} would no longer fit into 64 bits; nothing was changed"
            )
        return after

    def fits(self) -> bool:
        """Return whether every number fits into a signed 64-bit integer."""
        numbers = (self.allocated, self.reserved, self.spent, self.debt, self.overdraft_limit, self.remaining)
        return min(numbers) >= INT64_MIN and max(numbers) <= INT64_MAX

    def amount(self, value: int) -> Body:
        """Return a number of this budget as an amount."""
        return {"unit": self.unit, "amount": value}

    def balance(self) -> Body:
        """Return the balance object of responses: leaf scope; debt, limit and flag only if they are set."""
        shown: Body = {
            "scope": leaf(self.scope),
            "scope_path": self.scope,
            "remaining": self.amount(self.remaining),
            "reserved": self.amount(self.reserved),
            "spent": self.amount(self.spent),
            "allocated": self.amount(self.allocated),
        }
        if self.debt > 0:
            shown["debt"] = self.amount(self.debt)
        if self.overdraft_limit > 0:
            shown["overdraft_limit"] = self.amount(self.overdraft_limit)
        if self.is_over_limit:
            shown["is_over_limit"] = True
        return shown


@frozen(kw_only=True)
class BudgetWindow(Record):
    """The current window of a budget. `next_period` is the one that begins at its end; ``""`` ends the windows."""

    kind: ClassVar[str] = "budget_window"

    scope: str
    unit: str
    period: str
    timezone: str
    ends_ms: int
    next_period: str | None = None
    next_timezone: str | None = None

    @property
    def key(self) -> Key:
        """Return scope and unit, as its budget has them."""
        return (self.scope, self.unit)

    @property
    def due_ms(self) -> int:
        """Return the last millisecond of the window."""
        return self.ends_ms - 1


@frozen(kw_only=True)
class Reservation(Record):
    """One reservation. `budgeted` are the scopes that had a budget at its creation; it changes only those."""

    kind: ClassVar[str] = "reservation"

    reservation_id: str
    number: int
    tenant: str
    idempotency_key: str
    subject: Body
    action: Body
    unit: str
    reserved: int
    overage_policy: str
    scopes: tuple[str, ...]
    budgeted: tuple[str, ...]
    created_at_ms: int
    expires_at_ms: int
    grace_period_ms: int
    max_extensions: int
    metadata: Body | None = None
    status: str = "ACTIVE"
    extensions: int = 0
    charged: int | None = None
    finalized_at_ms: int | None = None
    committed_metadata: Body | None = None
    # Counters of a run that count this reservation; see `action_policies`.
    counted: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """Return the reservation id."""
        return (self.reservation_id,)

    @property
    def grace_ends_ms(self) -> int:
        """Return the last moment at which commit and release are allowed."""
        return self.expires_at_ms + self.grace_period_ms

    @property
    def due_ms(self) -> int:
        """Return when an active reservation expires, or when an ended one is deleted."""
        if self.status == "ACTIVE":
            return self.grace_ends_ms
        # Counts from the expiry, as if a sweeper ran all the time, not from the sweep that found it.
        return (self.grace_ends_ms if self.finalized_at_ms is None else self.finalized_at_ms) + RETENTION_MS

    @property
    def scope_path(self) -> str:
        """Return the deepest scope."""
        return self.scopes[-1]

    def amount(self, value: int) -> Body:
        """Return a number in the unit of this reservation as an amount."""
        return {"unit": self.unit, "amount": value}


@frozen(kw_only=True)
class StoredResponse(Record):
    """The response that a repeated idempotency key gets. `owner` is the tenant or the reservation."""

    kind: ClassVar[str] = "remembered"

    operation: str
    owner: str
    idempotency_key: str
    digest: str
    response: Body
    until_ms: int
    # Set if the response has a remaining_ttl_ms, which a replay computes again from this reservation.
    reservation_id: str | None = None
    # True for a live reservation in observe mode.
    observed: bool = False
    # What an event charged: at_ms, scope_path, unit, amount, action. An event has no record of its own.
    charge: Body | None = None

    @property
    def key(self) -> Key:
        """Return operation, owner and idempotency key."""
        return (self.operation, self.owner, self.idempotency_key)

    @property
    def due_ms(self) -> int:
        """Return the last moment at which the response is stored."""
        return self.until_ms


@frozen(kw_only=True)
class Tenant(Record):
    """The settings of a tenant, stored unchecked, so that a test can make a corrupt record."""

    kind: ClassVar[str] = "tenant"

    name: str
    status: Any = "ACTIVE"
    default_commit_overage_policy: str | None = None
    default_reservation_ttl_ms: int | None = None
    max_reservation_ttl_ms: int | None = None
    max_reservation_extensions: int | None = None
    observe_mode: str | None = None

    @property
    def key(self) -> Key:
        """Return the tenant's name, case-sensitive."""
        return (self.name,)


@frozen(kw_only=True)
class ApiKey(Record):
    """An API key and its tenant, stored unchecked. `minted` is true for a key of `api_key_for`."""

    kind: ClassVar[str] = "api_key"

    secret: str
    tenant: str | None
    status: Any = "ACTIVE"
    expires_at_ms: int | None = None
    minted: bool = False

    @property
    def key(self) -> Key:
        """Return the secret."""
        return (self.secret,)

    @property
    def key_id(self) -> str:
        """Return the id of the key. It follows from the secret, so a key that a test made has one too."""
        return f"key_{uuid.uuid5(uuid.NAMESPACE_URL, self.secret).hex[:16]}"


@frozen(kw_only=True)
class AdminInfo(Record):
    """Members that only the admin operations use, about a tenant, a budget, an API key or an audit log entry."""

    kind: ClassVar[str] = "admin_info"

    about: str
    name: str
    values: Body
    until_ms: int | None = None

    @property
    def key(self) -> Key:
        """Return what the members are about, and its name."""
        return (self.about, self.name)

    @property
    def due_ms(self) -> int | None:
        """Return the last moment at which the members are stored."""
        return self.until_ms


@frozen(kw_only=True)
class Policy(Record):
    """Lists of action kinds, and quotas, for a scope and what is below it. `allowed_kinds` None allows all kinds."""

    kind: ClassVar[str] = "policy"

    name: str
    scope: str
    priority: int = 0
    allowed_kinds: tuple[str, ...] | None = None
    denied_kinds: tuple[str, ...] = ()
    quotas: tuple[Body, ...] = ()

    @property
    def key(self) -> Key:
        """Return the name."""
        return (self.name,)


@frozen(kw_only=True)
class QuotaCounter(Record):
    """How many reservations one window of a quota has counted."""

    kind: ClassVar[str] = "quota_counter"

    tenant: str
    scope: str
    action_kind: str
    risk_class: str | None = None
    window: str
    window_key: str
    limit: int
    policy: str
    used: int = 0
    counted_at_ms: int = 0
    until_ms: int | None = None

    @property
    def key(self) -> Key:
        """Return everything that distinguishes one counter from another."""
        return (self.tenant, self.scope, self.action_kind, self.risk_class or "", self.window, self.window_key)

    @property
    def due_ms(self) -> int | None:
        """Return the last moment at which the counter is stored."""
        return self.until_ms

    def to_body(self) -> Body:
        """Return the counter as responses show it."""
        body: Body = {
            "action_kind": self.action_kind,
            "scope": self.scope,
            "scope_path": self.scope,
            "window": self.window,
            "window_key": self.window_key,
            "used": self.used,
            "limit": self.limit,
            "remaining": max(0, self.limit - self.used),
            "policy_id": self.policy,
        }
        return body if self.risk_class is None else body | {"risk_class": self.risk_class}


KINDS: Final[dict[str, type[Record]]] = {
    cls.kind: cls
    for cls in (Budget, BudgetWindow, Reservation, StoredResponse, Tenant, ApiKey, AdminInfo, Policy, QuotaCounter)
}
