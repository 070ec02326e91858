"""Results of admin operations: frozen values; absent members are None, times are aware datetimes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Self

from attrs import evolve, field, fields_dict, frozen

from cycles._core.amounts import Amount, SignedAmount
from cycles._core.results import Readers, Result
from cycles._errors import CyclesError
from cycles._version import readable


def _amount(body: Mapping[str, Any]) -> SignedAmount:
    kind = Amount if body["amount"] >= 0 else SignedAmount
    return kind(body["unit"], body["amount"])


_time = datetime.fromisoformat
_TIMES: Readers = dict.fromkeys(
    ("created_at", "updated_at", "suspended_at", "closed_at", "expires_at", "revoked_at", "last_used_at"), _time
)


@frozen(kw_only=True)
class Tenant(Result):
    """A tenant with its settings.

    Attributes:
        status: ACTIVE, SUSPENDED or CLOSED.
        created: Whether this call created it; False if it existed, or if the call was not `create_tenant`.
        default_reservation_ttl_ms: Lifetime of reservations without one, in milliseconds.
        max_reservation_ttl_ms: Longest lifetime of a reservation, in milliseconds.
    """

    tenant_id: str
    name: str
    status: str
    created: bool = False
    parent_tenant_id: str | None = None
    default_commit_overage_policy: str | None = None
    default_reservation_ttl_ms: int | None = None
    max_reservation_ttl_ms: int | None = None
    max_reservation_extensions: int | None = None
    reservation_expiry_policy: str | None = None
    metadata: Mapping[str, str] | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    suspended_at: datetime | None = None
    closed_at: datetime | None = None

    _read: ClassVar[Readers] = _TIMES


@frozen(kw_only=True)
class Budget(Result):
    """The budget of a scope in one unit. `remaining` may be negative; `status` is ACTIVE, FROZEN or CLOSED."""

    ledger_id: str
    scope: str
    unit: str
    allocated: SignedAmount
    remaining: SignedAmount
    status: str
    tenant_id: str | None = None
    reserved: SignedAmount | None = None
    spent: SignedAmount | None = None
    debt: SignedAmount | None = None
    overdraft_limit: SignedAmount | None = None
    is_over_limit: bool | None = None
    commit_overage_policy: str | None = None
    rollover_policy: str | None = None
    period_start: datetime | None = None
    period_end: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    _read: ClassVar[Readers] = {
        **_TIMES,
        **dict.fromkeys(("period_start", "period_end"), _time),
        **dict.fromkeys(("allocated", "remaining", "reserved", "spent", "debt", "overdraft_limit"), _amount),
    }


@frozen(kw_only=True)
class Funding(Result):
    """The budget before (`previous_...`) and after (`new_...`) funding. A replay returns the first result again."""

    operation: str
    previous_allocated: SignedAmount
    new_allocated: SignedAmount
    previous_remaining: SignedAmount
    new_remaining: SignedAmount
    previous_debt: SignedAmount | None = None
    new_debt: SignedAmount | None = None
    previous_spent: SignedAmount | None = None
    new_spent: SignedAmount | None = None
    timestamp: datetime | None = None

    _read: ClassVar[Readers] = {
        "timestamp": _time,
        **{f"{when}_{what}": _amount for when in ("previous", "new") for what in ("allocated", "remaining")},
        **{f"{when}_{what}": _amount for when in ("previous", "new") for what in ("debt", "spent")},
    }


@frozen(kw_only=True)
class BulkRow(Result):
    """One row of a bulk action: its id, and why it failed or was skipped."""

    id: str
    error_code: str | None = None
    message: str | None = None
    reason: str | None = None


def _rows(items: list[Mapping[str, Any]]) -> tuple[BulkRow, ...]:
    return tuple(BulkRow.read(item) for item in items)


@frozen(kw_only=True)
class BulkReport(Result):
    """Result of a bulk action. Rows are not one transaction: some may fail although others were changed."""

    action: str
    total_matched: int
    succeeded: tuple[BulkRow, ...]
    failed: tuple[BulkRow, ...]
    skipped: tuple[BulkRow, ...]
    idempotency_key: str | None = None

    _read: ClassVar[Readers] = dict.fromkeys(("succeeded", "failed", "skipped"), _rows)


@frozen(kw_only=True)
class ApiKey(Result):
    """An API key without its secret. `status` is ACTIVE, REVOKED or EXPIRED."""

    key_id: str
    tenant_id: str
    status: str
    key_prefix: str | None = None
    name: str | None = None
    description: str | None = None
    permissions: list[str] | None = None
    scope_filter: list[str] | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_reason: str | None = None
    metadata: Mapping[str, str] | None = None

    _read: ClassVar[Readers] = _TIMES


@frozen(kw_only=True)
class Policy(Result):
    """A policy. `status` is ACTIVE or DISABLED."""

    policy_id: str
    scope_pattern: str
    status: str
    tenant_id: str | None = None
    name: str | None = None
    description: str | None = None
    priority: int | None = None
    caps: Mapping[str, Any] | None = None
    commit_overage_policy: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    _read: ClassVar[Readers] = _TIMES


@frozen(kw_only=True)
class Overview(Result):
    """The state of a deployment. Counts are by status; lists have what needs a look, as the server shows it."""

    as_of: datetime
    event_window_seconds: int
    tenant_counts: Mapping[str, Any]
    budget_counts: Mapping[str, Any]
    webhook_counts: Mapping[str, Any]
    event_counts: Mapping[str, Any]
    over_limit_scopes: list[Mapping[str, Any]] = field(factory=list)
    debt_scopes: list[Mapping[str, Any]] = field(factory=list)
    failing_webhooks: list[Mapping[str, Any]] = field(factory=list)
    recent_denials: list[Mapping[str, Any]] = field(factory=list)
    recent_expiries: list[Mapping[str, Any]] = field(factory=list)

    _read: ClassVar[Readers] = {"as_of": _time}


@frozen(kw_only=True)
class WebhookSecurity(Result):
    """Which addresses webhooks may have."""

    allow_http: bool = False
    blocked_cidr_ranges: list[str] = field(factory=list)
    allowed_url_patterns: list[str] = field(factory=list)


class HiddenSecret:
    """Access to a secret that is in no repr, no pickle and no copy of its object."""

    __slots__ = ()

    _secret: str | None

    @property
    def secret(self) -> str:
        """Return the secret.

        Raises:
            CyclesError: if the object was pickled or copied, which removes the secret.
        """
        if self._secret is None:
            raise CyclesError(f"{type(self).__name__} has no secret: a pickle or copy does not contain it")
        return self._secret

    def __reduce__(self) -> tuple[Any, ...]:
        members = {
            name: getattr(self, name)
            for name in fields_dict(type(self))  # type: ignore[arg-type]
            if name != "_secret"
        }
        return _rebuild, (type(self), members)


def _rebuild(cls: type[Any], members: dict[str, Any]) -> Any:
    return cls(**members)


@frozen(kw_only=True, slots=False)
class NewApiKey(HiddenSecret, Result):
    """A new API key. `secret` is the key itself; the server returns it only once."""

    key_id: str
    key_prefix: str | None = None
    tenant_id: str | None = None
    permissions: list[str] | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    _secret: str | None = field(default=None, repr=False, eq=False, alias="secret")

    _read: ClassVar[Readers] = _TIMES

    @classmethod
    def read(cls, body: Mapping[str, Any], **ids: Any) -> Self:
        """Return the key of a response, with its secret hidden, also in `raw`."""
        shown = {name: value for name, value in body.items() if name != "key_secret"}
        return evolve(super().read(shown, **ids), secret=body["key_secret"])


@frozen(kw_only=True, slots=False)
class NewWebhook(HiddenSecret, Result):
    """A new webhook subscription. `secret` signs its deliveries; the server returns it only once."""

    subscription_id: str
    url: str
    event_types: list[str]
    status: str
    tenant_id: str | None = None
    name: str | None = None
    scope_filter: str | None = None
    created_at: datetime | None = None
    _secret: str | None = field(default=None, repr=False, eq=False, alias="secret")

    _read: ClassVar[Readers] = _TIMES

    @classmethod
    def read(cls, body: Mapping[str, Any], **ids: Any) -> Self:
        """Return the subscription of a response, with its secret and the values of its headers hidden."""
        shown = dict(body["subscription"])
        if isinstance(shown.get("headers"), Mapping):
            shown["headers"] = dict.fromkeys(shown["headers"], "********")
        result = super().read(shown, **ids)
        return evolve(result, secret=body.get("signing_secret"))


@frozen(kw_only=True)
class AuditEntry(Result):
    """One call of an admin operation. `tenant_id` is ``__admin__`` or ``__unauth__`` for calls without a tenant."""

    log_id: str
    timestamp: datetime
    tenant_id: str
    operation: str
    status: int
    key_id: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    error_code: str | None = None
    source_ip: str | None = None
    user_agent: str | None = None
    metadata: Mapping[str, Any] | None = None

    _read: ClassVar[Readers] = {"timestamp": _time}


@frozen(kw_only=True)
class QuotaCounter(Result):
    """One quota counter of protocol 0.1.26. `previous_used` is set by `reset_quota_counter` only."""

    action_kind: str
    scope: str
    window: str
    used: int
    limit: int
    risk_class: str | None = None
    scope_path: str | None = None
    window_key: str | None = None
    remaining: int | None = None
    policy_id: str | None = None
    expires_at: datetime | None = None
    last_incremented_at: datetime | None = None
    previous_used: int | None = None

    _read: ClassVar[Readers] = {**_TIMES, "last_incremented_at": _time}


@frozen(kw_only=True)
class Onboarded:
    """Result of `onboard`: the tenant, its budgets in the order of the request, and the new key."""

    tenant: Tenant
    budgets: tuple[Budget, ...]
    key: NewApiKey


readable(
    Onboarded, *(each for each in tuple(globals().values()) if isinstance(each, type) and issubclass(each, Result))
)
