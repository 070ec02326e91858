"""What the ledger remembers: small frozen records, each with a kind and a key, each one row of a store.

A change makes a new record; nothing is edited in place, so an operation that fails half-way has changed nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Self, TypeAlias

from attrs import evolve, fields_dict, frozen

from cycles._core.amounts import INT64_MAX
from cycles.embedded.errors import ApiError
from cycles.embedded.scopes import leaf

INT64_MIN: Final = -(2**63)
DAY_MS: Final = 24 * 60 * 60 * 1000
# Finalized and expired reservations can be read for this long, then they are gone.
RETENTION_MS: Final = 30 * DAY_MS

Body: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[str, ...]


class Record:
    """Base of all records. `due_ms`: the record needs attention once the clock is past this; None means never."""

    __slots__ = ()
    kind: ClassVar[str]

    @property
    def key(self) -> Key:
        """What tells this record from others of its kind."""
        raise NotImplementedError

    @property
    def due_ms(self) -> int | None:
        """The last moment at which the record is still as it is."""
        return None

    def to_json(self) -> Body:
        """The record as JSON values."""
        return {name: getattr(self, name) for name in fields_dict(type(self))}  # type: ignore[arg-type]

    @classmethod
    def of(cls, plain: Body) -> Self:
        """The record that `plain` described."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()})


@frozen(kw_only=True)
class Budget(Record):
    """One budget: a scope and a unit. `remaining` follows from the other numbers, so it cannot disagree with them."""

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
        """Scope and unit."""
        return (self.scope, self.unit)

    @property
    def remaining(self) -> int:
        """allocated - spent - reserved - debt; may be below zero."""
        return self.allocated - self.spent - self.reserved - self.debt

    def moved(self, *, reserved: int = 0, spent: int = 0, debt: int = 0, over_limit: bool = False) -> Budget:
        """This budget with its numbers moved by the given differences, and marked if `over_limit`.

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
            raise ApiError("INTERNAL_ERROR", f"the numbers of {self.scope} would no longer fit into 64 bits")
        return after

    def fits(self) -> bool:
        """True if every number fits into a signed 64-bit integer."""
        numbers = (self.allocated, self.reserved, self.spent, self.debt, self.overdraft_limit, self.remaining)
        return min(numbers) >= INT64_MIN and max(numbers) <= INT64_MAX

    def amount(self, value: int) -> Body:
        """A number of this budget as an amount."""
        return {"unit": self.unit, "amount": value}

    def balance(self) -> Body:
        """The balance object of answers: leaf scope, and debt, limit and flag only where they say something."""
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
class Reservation(Record):
    """One lease on budget. `budgeted` are the scopes that had a budget when it was made; only those are touched."""

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

    @property
    def key(self) -> Key:
        """The reservation id."""
        return (self.reservation_id,)

    @property
    def lapses_ms(self) -> int:
        """The last moment at which a commit or release is still taken."""
        return self.expires_at_ms + self.grace_period_ms

    @property
    def due_ms(self) -> int:
        """When an active one lapses, else when it is forgotten."""
        if self.status == "ACTIVE":
            return self.lapses_ms
        # A sweeper that runs all the time finds an expired one the moment it lapses, however late we look.
        return (self.lapses_ms if self.finalized_at_ms is None else self.finalized_at_ms) + RETENTION_MS

    @property
    def scope_path(self) -> str:
        """The deepest scope."""
        return self.scopes[-1]

    def amount(self, value: int) -> Body:
        """A number in the unit of this reservation as an amount."""
        return {"unit": self.unit, "amount": value}


@frozen(kw_only=True)
class StoredResponse(Record):
    """A success that a repeated idempotency key is answered with. `owner`: the tenant, or the reservation."""

    kind: ClassVar[str] = "remembered"

    operation: str
    owner: str
    idempotency_key: str
    digest: str
    response: Body
    until_ms: int
    # The reservation whose life the answer tells of: replays then compute remaining_ttl_ms afresh.
    reservation_id: str | None = None

    @property
    def key(self) -> Key:
        """Operation, owner and idempotency key: the name space of the key."""
        return (self.operation, self.owner, self.idempotency_key)

    @property
    def due_ms(self) -> int:
        """The last moment at which it is remembered."""
        return self.until_ms


@frozen(kw_only=True)
class Tenant(Record):
    """What an operator set for a tenant; stored as given, wrong words too."""

    kind: ClassVar[str] = "tenant"

    name: str
    status: Any = "ACTIVE"
    default_commit_overage_policy: str | None = None
    default_reservation_ttl_ms: int | None = None
    max_reservation_ttl_ms: int | None = None
    max_reservation_extensions: int | None = None

    @property
    def key(self) -> Key:
        """The tenant's name, exactly as written."""
        return (self.name,)


@frozen(kw_only=True)
class ApiKey(Record):
    """A key and whose it is; stored as given. `minted`: made by the server itself, for `api_key_for`."""

    kind: ClassVar[str] = "api_key"

    secret: str
    tenant: str | None
    status: Any = "ACTIVE"
    expires_at_ms: int | None = None
    minted: bool = False

    @property
    def key(self) -> Key:
        """The key itself."""
        return (self.secret,)


KINDS: Final[dict[str, type[Record]]] = {cls.kind: cls for cls in (Budget, Reservation, StoredResponse, Tenant, ApiKey)}
