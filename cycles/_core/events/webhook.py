"""The events that webhooks deliver: read a verified body into a `WebhookEvent`.

A member or type that is newer than this SDK is kept. A required member that is missing, and a known member of the wrong
type, are errors that name it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from cycles._core.amounts import Amount, SignedAmount
from cycles._core.values.strict_json import StrictJsonError, read_strict
from cycles._errors import WebhookPayloadError
from cycles._version import public

_TIMESTAMP: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?)\d*(Z|[+-]\d\d:\d\d)", re.ASCII)
_INT64: Final = range(-(2**63), 2**63)


@dataclass(frozen=True, kw_only=True)
class WebhookEvent:
    """One verified event. Members that a delivery leaves out are None.

    Attributes:
        id: The event's id. Retries and replays of an event carry the same one.
        type: For example ``budget.exhausted``. The list is open: ignore a type that you do not know.
        category: For example ``budget``; open too.
        timestamp: When it happened, as an aware datetime with microseconds. Order events by it, not by arrival.
        tenant_id: The tenant, or ``__system__`` for an event without one.
        source: The service that made the event, free text.
        scope: The full scope path, for example ``tenant:acme/agent:bot``.
        actor: Who caused it: `type`, and perhaps `key_id` and `source_ip`.
        data: The members of this type of event, empty if there are none. Amounts are integers in `data["unit"]`;
            `amount` joins the two.
        correlation_id, request_id, trace_id: Links to the request that caused the event.
        metadata: A free object.
        is_duplicate: True if the receiver's `seen` already has this id.
        raw: The JSON object of the body, unchanged.
    """

    id: str
    type: str
    category: str
    timestamp: datetime
    tenant_id: str
    source: str
    scope: str | None = None
    actor: Mapping[str, Any] | None = field(default=None, hash=False)
    data: Mapping[str, Any] = field(default_factory=dict, hash=False)
    correlation_id: str | None = None
    request_id: str | None = None
    trace_id: str | None = None
    metadata: Mapping[str, Any] | None = field(default=None, hash=False)
    is_duplicate: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_test(self) -> bool:
        """True for a test delivery, which reports no real event."""
        return self.type == "system.webhook_test"

    @property
    def extra(self) -> dict[str, Any]:
        """Members of the body that this SDK does not know yet."""
        return {name: value for name, value in self.raw.items() if name not in _KNOWN}

    def amount(self, name: str) -> Amount | SignedAmount | None:
        """Return the integer `data[name]` in the unit of `data["unit"]`, or None if either is missing.

        The result is an `Amount`; it is a `SignedAmount` if the number is below zero, as `remaining` may be.
        """
        value, unit = self.data.get(name), self.data.get("unit")
        if type(value) is not int or not isinstance(unit, str) or not unit or value not in _INT64:
            return None
        return Amount(unit, value) if value >= 0 else SignedAmount(unit, value)


def read_event(body: bytes) -> WebhookEvent:
    """Return the event in a body whose signature was verified.

    Raises:
        WebhookPayloadError: if the body is no event; the message names the member.
    """
    try:
        value = read_strict(body)
    except StrictJsonError as error:
        raise WebhookPayloadError(f"the body of the webhook cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise WebhookPayloadError(f"the body of the webhook must be a JSON object, it is {_kind(value)}")
    required = {name: _member(value, wire, str) for name, wire in _REQUIRED.items()}
    members = {
        name: _member(value, wire, kind)
        for name, (wire, kind) in _OPTIONAL.items()
        if value.get(wire) is not None and not (kind is str and value[wire] == "")  # an empty text says nothing
    }
    return WebhookEvent(**{**members, **required, "timestamp": _timestamp(required["timestamp"])}, raw=value)


_REQUIRED: Final = {
    "id": "event_id",
    "type": "event_type",
    "category": "category",
    "timestamp": "timestamp",
    "tenant_id": "tenant_id",
    "source": "source",
}
_OPTIONAL: Final[dict[str, tuple[str, type]]] = {
    **{name: (name, str) for name in ("scope", "correlation_id", "request_id", "trace_id")},
    **{name: (name, dict) for name in ("actor", "data", "metadata")},
}
_KNOWN: Final = frozenset({*_REQUIRED.values(), *(wire for wire, _ in _OPTIONAL.values())})


def _member(body: Mapping[str, Any], name: str, kind: type) -> Any:
    value = body.get(name)
    if value is None:
        raise WebhookPayloadError(f"the member {name!r:.40} of the event is missing: it must be present")
    if not isinstance(value, kind) or value == "":
        wanted = "an object" if kind is dict else "a string that is not empty"
        raise WebhookPayloadError(f"the member {name!r:.40} of the event must be {wanted}, it is {_kind(value)}")
    return value


def _kind(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return "an empty string" if value == "" else repr(value)[:60]


def _timestamp(text: str) -> datetime:
    match = _TIMESTAMP.fullmatch(text)
    try:
        if match is not None:
            return datetime.fromisoformat("".join(match.groups()))  # without the digits beyond microseconds
    except ValueError:
        pass
    raise WebhookPayloadError(f"the member 'timestamp' of the event is not an ISO 8601 time with a zone: {text[:60]!r}")


public(WebhookEvent)
