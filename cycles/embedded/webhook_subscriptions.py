"""Webhook subscriptions: who gets which events, and how a request to create or change one is checked."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from attrs import define, evolve, field, fields_dict, frozen

from cycles._core.messages.schema import Checkers
from cycles._errors import InvalidRequestError
from cycles.embedded.records import Body
from cycles.embedded.webhook_events import CATEGORIES, is_event_type

SYSTEM: Final = "__system__"
_OF_TENANTS: Final = ("budget", "reservation", "tenant")
_MASK: Final = "********"


class InvalidUrlError(InvalidRequestError):
    """The URL of a subscription is no http or https address."""


@frozen(kw_only=True)
class RetryPolicy:
    """When a failed delivery is attempted again. Delays are in milliseconds."""

    max_retries: int = 5
    initial_delay_ms: int = 1_000
    backoff_multiplier: float = 2.0
    max_delay_ms: int = 60_000

    def delay_ms(self, retry: int) -> int:
        """Return the delay before retry number `retry`, which counts from 1."""
        return int(min(self.initial_delay_ms * self.backoff_multiplier ** (retry - 1), self.max_delay_ms))


@define(kw_only=True)
class Subscription:
    """One subscription. `secret` signs its deliveries and is in no representation of it."""

    subscription_id: str = field(factory=lambda: f"whsub_{secrets.token_hex(8)}")
    tenant_id: str = SYSTEM
    url: str
    event_types: list[str] = field(factory=list)
    event_categories: list[str] = field(factory=list)
    scope_filter: str | None = None
    secret: str = field(factory=lambda: f"whsec_{secrets.token_urlsafe(32)}", repr=False)
    headers: dict[str, str] = field(factory=dict, repr=False)
    retry_policy: RetryPolicy = RetryPolicy()
    disable_after_failures: int = 10
    name: str | None = None
    description: str | None = None
    metadata: Body | None = None
    status: str = "ACTIVE"
    consecutive_failures: int = 0
    created_at: str = ""
    updated_at: str | None = None
    last_triggered_at: str | None = None
    last_success_at: str | None = None
    last_failure_at: str | None = None

    def wants(self, event: Mapping[str, Any]) -> bool:
        """Return whether an event is delivered to this subscription."""
        mine = self.tenant_id == SYSTEM or self.tenant_id.lower() == str(event["tenant_id"]).lower()
        chosen = event["event_type"] in self.event_types or event["category"] in self.event_categories
        return self.status == "ACTIVE" and mine and chosen and self._in_scope(event.get("scope"))

    def _in_scope(self, scope: str | None) -> bool:
        wanted = self.scope_filter
        if wanted is None:
            return True
        if scope is None:
            return False
        return scope.startswith(wanted[:-1]) if wanted.endswith("*") else scope == wanted

    def to_dict(self, *, masked: bool = True) -> Body:
        """Return the subscription as responses show it, without its secret."""
        shown: Body = {name: getattr(self, name) for name in fields_dict(type(self)) if name != "secret"}
        policy = self.retry_policy
        shown["retry_policy"] = {name: getattr(policy, name) for name in fields_dict(RetryPolicy)}
        if masked:
            shown["headers"] = dict.fromkeys(self.headers, _MASK)
        return {name: value for name, value in shown.items() if value is not None and value not in ([], {})}


def _integer(low: int, high: int) -> Body:
    return {"type": "integer", "minimum": low, "maximum": high}


_STRINGS: Final[Body] = {"type": "array", "items": {"type": "string"}}
_CREATE: Final[dict[str, Body]] = {
    "url": {"type": "string", "maxLength": 2048},
    "event_types": {**_STRINGS, "minItems": 1},
    "event_categories": _STRINGS,
    "scope_filter": {"type": "string"},
    "thresholds": {"type": "object"},
    "signing_secret": {"type": "string", "minLength": 1},
    "headers": {"type": "object", "additionalProperties": {"type": "string"}},
    "retry_policy": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "max_retries": _integer(0, 10),
            "initial_delay_ms": _integer(100, 60_000),
            "backoff_multiplier": {"type": "number", "minimum": 1.0, "maximum": 10.0},
            "max_delay_ms": _integer(1_000, 3_600_000),
        },
    },
    "disable_after_failures": _integer(1, 2**31 - 1),
    "name": {"type": "string", "maxLength": 256},
    "description": {"type": "string", "maxLength": 1024},
    "metadata": {"type": "object"},
}
_UPDATE: Final[dict[str, Body]] = {
    **_CREATE,
    "event_types": _STRINGS,
    "status": {"type": "string", "enum": ["ACTIVE", "PAUSED"]},
}
_REPLAY: Final[dict[str, Body]] = {
    "from": {"type": "string"},
    "to": {"type": "string"},
    "event_types": _STRINGS,
    "max_events": _integer(1, 1_000),
}


def _closed(members: dict[str, Body], *required: str) -> Body:
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": members}


MEMBERS: Final = {"create": frozenset(_CREATE), "update": frozenset(_UPDATE)}
"""The members of the requests that create and change a subscription."""

_CHECKERS: Final = Checkers(
    {"create": _closed(_CREATE, "url", "event_types"), "update": _closed(_UPDATE), "replay": _closed(_REPLAY)},
    responses=False,
)


def checked(kind: str, body: Any) -> Body:
    """Return the body of a request: ``create``, ``update`` or ``replay``. Members that are null count as absent.

    Raises:
        InvalidRequestError: naming the member.
    """
    form = {name: value for name, value in body.items() if value is not None} if isinstance(body, dict) else body
    problem = _CHECKERS[kind](form, "")
    if problem is not None:
        raise InvalidRequestError(problem.removeprefix(": "))
    assert isinstance(form, dict)
    for name in form.get("event_types", ()):
        if not is_event_type(name):
            raise InvalidRequestError(f"event_types: unknown event type {name!r:.80}")
    for name in form.get("event_categories", ()):
        if name not in CATEGORIES:
            raise InvalidRequestError(f"event_categories: unknown category {name!r:.80}")
    return form


def created(form: Body, tenant_id: str, now: str) -> Subscription:
    """Return a new subscription from the checked body of a request.

    Raises:
        InvalidUrlError: if the URL is none.
        InvalidRequestError: for a type that a tenant cannot subscribe to.
    """
    return _changed(Subscription(url="", tenant_id=tenant_id, created_at=now), form)


def updated(subscription: Subscription, form: Body, now: str) -> Subscription:
    """Return a subscription with the members of the checked body of a request.

    Raises:
        InvalidUrlError, InvalidRequestError: as `created`.
    """
    changed = _changed(subscription, form)
    failures = 0 if form.get("status") == "ACTIVE" else changed.consecutive_failures
    return evolve(changed, updated_at=now, consecutive_failures=failures)


def _changed(subscription: Subscription, form: Body) -> Subscription:
    members = {
        name: value for name, value in form.items() if name not in ("signing_secret", "retry_policy", "thresholds")
    }
    if "signing_secret" in form:
        members["secret"] = form["signing_secret"]
    if "retry_policy" in form:
        members["retry_policy"] = RetryPolicy(**form["retry_policy"])
    changed = evolve(subscription, **members)
    _check_url(changed.url)
    if changed.tenant_id != SYSTEM:
        chosen = [*changed.event_types, *changed.event_categories]
        for name in chosen:
            if name.partition(".")[0] not in _OF_TENANTS:
                message = f"a tenant cannot subscribe to {name}; it can to budget.*, reservation.* and tenant.*"
                raise InvalidRequestError(message)
    return changed


def _check_url(url: str) -> None:
    parts = split(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidUrlError(f"url is not an http or https address: {url[:200]!r}; write https://HOST/PATH")


def split(url: str) -> SplitResult:
    """Return the parts of a URL, empty ones if it is none, such as ``http://[::1``."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")
