"""A reserve request: the checked arguments of the caller, and the body that is sent for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from attrs import evolve, field, frozen

from cycles._config import LeasePolicy, OnObserved, Settle, Unavailable
from cycles._core.amounts import Amount
from cycles._core.subjects import Action, Subject

Actual: TypeAlias = Amount | Callable[..., Amount] | None


@frozen(kw_only=True)
class ReserveRequest:
    """One reservation as described by the caller. Durations are milliseconds, `wait` is seconds."""

    estimate: Amount
    action: Action
    subject: Subject
    ttl_ms: int
    grace_period_ms: int | None = None
    overage_policy: str | None = None
    metadata: Mapping[str, Any] | None = None
    idempotency_key: str | None = None
    actual: Actual = None
    lease_policy: LeasePolicy = "warn"
    shadow: bool = False
    on_unavailable: Unavailable = "raise"
    wait: float | None = None
    on_observed: OnObserved = "raise"
    observe: bool = False
    timeout: float | None = None
    extra_headers: Mapping[str, str] | None = field(default=None, repr=False)
    max_retries: int = 1
    settle: Settle | None = None
    is_chunk: bool = False
    is_approved: bool = False  # `approve` has been called for what this request pays for
    reports_denial: bool = True  # False: the caller waits, and reports its last denial itself
    settlement_metadata: Mapping[str, str] = field(factory=dict)
    made: dict[str, Any] | None = field(default=None, init=False, eq=False, repr=False)
    """The body but for its key, from the first use on: a program uses the same request again."""

    def without_wait(self) -> ReserveRequest:
        """Return this request for a caller that waits, and reports its last denial itself."""
        request = evolve(self, wait=None, reports_denial=False)
        object.__setattr__(request, "made", self.made)  # the body has neither, so it is not made a second time
        return request

    def body(self, key: str) -> dict[str, Any]:
        """Return the body of the create request; the server's defaults apply to what is absent."""
        return {"idempotency_key": key, **(self.made or self.make())}

    def make(self) -> dict[str, Any]:
        """Make `made`, and return it."""
        body: dict[str, Any] = {
            "subject": self.subject.to_dict(),
            "action": self.action.to_dict(),
            "estimate": self.estimate.to_dict(),
            "ttl_ms": self.ttl_ms,
        }
        # What is absent gets the server's default; null would not satisfy its schema.
        if self.grace_period_ms is not None:
            body["grace_period_ms"] = self.grace_period_ms
        if self.overage_policy is not None:
            body["overage_policy"] = self.overage_policy
        if self.shadow:
            body["dry_run"] = True
        if self.observe:
            body["observe_mode"] = "OBSERVE"
        if self.metadata:
            body["metadata"] = dict(self.metadata)
        object.__setattr__(self, "made", body)  # the class is frozen
        return body
