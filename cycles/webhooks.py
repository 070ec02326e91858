"""Verify webhook deliveries of a Cycles server: bytes and headers in, a `WebhookEvent` out.

The module needs the standard library only. It opens no socket and knows no web framework, and it reads a clock only if
`max_age_ms` is set or `SeenEvents` is used. See `docs/webhooks.md`.

A member or type of an event that is newer than this SDK is kept. A required member that is missing, and a known member
of the wrong type, are errors that name it.
"""

from __future__ import annotations

import hmac
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, TypeAlias

from cycles._core.amounts import Amount, SignedAmount
from cycles._errors import (
    ConfigurationError,
    InvalidRequestError,
    WebhookPayloadError,
    WebhookReplayError,
    WebhookSignatureError,
)
from cycles._evidence.strict_json import StrictJsonError, read_strict
from cycles._version import public


class HasItems(Protocol):
    """A header object, for example of Werkzeug or of `email.message`."""

    def items(self) -> Iterable[tuple[str, Any]]: ...


Headers: TypeAlias = Mapping[str, Any] | Iterable[tuple[str | bytes, str | bytes]] | HasItems
"""A mapping, a list of pairs (ASGI gives pairs of bytes), or the header object of a web framework."""

SIGNATURE_HEADER: Final = "X-Cycles-Signature"
EVENT_ID_HEADER: Final = "X-Cycles-Event-Id"
EVENT_TYPE_HEADER: Final = "X-Cycles-Event-Type"

DEFAULT_MAX_AGE_MS: Final = 86_700_000
"""A `max_age_ms` that accepts every delivery but replays: 24 hours, after which the server gives up, and 5 minutes."""

_TWO_DAYS_MS: Final = 172_800_000
_LONGEST_MS: Final = 100 * 365 * 24 * 60 * 60 * 1000
_MAX_BODY_BYTES: Final = 1024 * 1024
_FUTURE: Final = timedelta(minutes=5)  # how far the clocks of sender and receiver may differ
_FORM: Final = re.compile(r"sha256=[0-9a-f]{64}")
_TIMESTAMP: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?)\d*(Z|[+-]\d\d:\d\d)", re.ASCII)
_INT64: Final = range(-(2**63), 2**63)
# One message for every way to fail, so that a sender does not learn which one it was.
_NO_MATCH: Final = (
    f"the signature of the webhook is not valid: header {SIGNATURE_HEADER}; "
    "pass the body bytes as received and the signing secret of the subscription"
)


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


class SeenStore(Protocol):
    """Where a receiver keeps the ids of the events that are done."""

    def __contains__(self, event_id: object, /) -> bool: ...
    def add(self, event_id: str, /) -> object: ...


class SeenEvents:
    """The ids of events that are done, in the memory of this process.

    Args:
        max_entries: How many ids are kept; the oldest is dropped first.
        ttl_ms: How long an id is kept, in milliseconds: 48 hours by default.
        now: Returns the current time as an aware datetime; for tests.
    """

    def __init__(
        self,
        max_entries: int = 100_000,
        ttl_ms: int = _TWO_DAYS_MS,
        *,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._max_entries = _positive("max_entries", max_entries)
        self._ttl = _duration("ttl_ms", ttl_ms)
        self._now = now or _utc_now
        self._ends: OrderedDict[object, datetime] = OrderedDict()
        self._lock = threading.RLock()  # a signal handler may use it in the middle of `add`

    def __contains__(self, event_id: object) -> bool:
        with self._lock:
            end = self._ends.get(event_id)
        return end is not None and self._now() < end

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, event_id: str) -> None:
        """Keep `event_id` for `ttl_ms` from now."""
        end = self._now() + self._ttl
        with self._lock:
            self._ends.pop(event_id, None)
            self._ends[event_id] = end  # as the last one
            if len(self._ends) > self._max_entries:
                self._ends.popitem(last=False)


class WebhookReceiver:
    """Verify deliveries and turn them into events. Threads may share one receiver.

    Args:
        secrets: The signing secrets of the subscription: the current one and, during a rotation, the previous one.
        max_age_ms: Reject events that are older, in milliseconds. None (the default) accepts any age, because the
            server may deliver late and replay old events. `DEFAULT_MAX_AGE_MS` rejects replays only.
        seen: Ids of events that are done, for example `SeenEvents()`. It needs ``id in seen`` and ``seen.add(id)``.
        max_body_bytes: Reject larger bodies.
        now: Returns the current time as an aware datetime, in place of the system's clock.

    Raises:
        ConfigurationError: if there is no secret, or one is empty. Any sender could sign with an empty secret.
    """

    def __init__(
        self,
        secrets: str | Sequence[str],
        *,
        max_age_ms: int | None = None,
        seen: SeenStore | None = None,
        max_body_bytes: int = _MAX_BODY_BYTES,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._keys = _keys(secrets)
        self._max_age = None if max_age_ms is None else _duration("max_age_ms", max_age_ms)
        if seen is not None and not (hasattr(seen, "add") and hasattr(seen, "__contains__")):
            raise ConfigurationError(
                f"seen must have __contains__ and add, got a value of type {type(seen).__name__}; "
                "pass cycles.SeenEvents() or your own store"
            )
        self._seen = seen
        self._max_body_bytes = _positive("max_body_bytes", max_body_bytes)
        self._now = now or _utc_now

    def __repr__(self) -> str:
        return f"<WebhookReceiver with {len(self._keys)} secret{'s' if len(self._keys) != 1 else ''}>"

    @property
    def max_body_bytes(self) -> int:
        """The size of the largest body that is accepted, in bytes."""
        return self._max_body_bytes

    def receive(self, *, body: bytes, headers: Headers, now: datetime | None = None) -> WebhookEvent:
        """Verify one delivery and return its event. Nothing of the body is read before its signature is verified.

        `receive` only looks the event up in `seen`; call `done(event)` after the work.

        Args:
            body: The request body as received.
            headers: The request's headers. A list of pairs shows doubled headers, a plain dict cannot.
            now: The current time as an aware datetime; used with `max_age_ms` only.

        Raises:
            WebhookSignatureError: if the signature is missing or wrong; respond with its `status`, 401.
            WebhookPayloadError: if the body is too large or no event, or a header contradicts it; 400.
            WebhookReplayError: if the event is too old or in the future; 400.
            InvalidRequestError: if an argument has the wrong type, for example a body that was already decoded.
        """
        body = _bytes(body)
        if len(body) > self._max_body_bytes:
            raise WebhookPayloadError(
                f"the body of the webhook is too large: more than max_body_bytes={self._max_body_bytes}"
            )
        found = _headers(headers)
        signatures = found[SIGNATURE_HEADER.lower()]
        _verify(body, signatures[0] if len(signatures) == 1 else None, self._keys)
        event = _read_event(body)
        _compare(EVENT_ID_HEADER, found, "event_id", event.id)
        _compare(EVENT_TYPE_HEADER, found, "event_type", event.type)
        if self._max_age is not None:
            _check_age(event, _aware(self._now() if now is None else now), self._max_age)
        return replace(event, is_duplicate=True) if self._seen is not None and event.id in self._seen else event

    def done(self, event: WebhookEvent) -> None:
        """Add the event to `seen`. Call it when the work is done or safely queued, not before."""
        if self._seen is not None:
            self._seen.add(event.id)


def verify_webhook(body: bytes, signature: str | None, secrets: str | Sequence[str]) -> None:
    """Check the signature of a body, and nothing else. `WebhookReceiver` checks the event too.

    Args:
        body: The request body as received.
        signature: The value of the header ``X-Cycles-Signature``; None if there is none.
        secrets: The secrets that may have signed it. All of them are tried, each in constant time.

    Raises:
        WebhookSignatureError: if the signature is missing, malformed or of another secret.
        ConfigurationError: if there is no secret, or one is empty.
        InvalidRequestError: if the body is not bytes.
    """
    _verify(_bytes(body), _text(signature), _keys(secrets))


def sign_webhook(body: bytes, secret: str) -> str:
    """Return the signature of a body, as the server sends it: ``sha256=`` and 64 hex digits. For tests.

    Raises:
        ConfigurationError: if the secret is empty.
        InvalidRequestError: if the body is not bytes.
    """
    [key] = _keys([secret])
    return _signature(_bytes(body), key)


def _signature(body: bytes, key: bytes) -> str:
    return "sha256=" + hmac.new(key, body, "sha256").hexdigest()


def _verify(body: bytes, signature: object, keys: Sequence[bytes]) -> None:
    given = signature if isinstance(signature, str) and _FORM.fullmatch(signature) else ""
    matched = False
    for key in keys:  # every key is tried: the time must not show which one matched
        matched |= hmac.compare_digest(_signature(body, key).encode(), given.encode())
    if not matched:
        raise WebhookSignatureError(_NO_MATCH)


def _keys(secrets: str | Sequence[str]) -> tuple[bytes, ...]:
    given = (secrets,) if isinstance(secrets, str) else secrets
    if not isinstance(given, Iterable) or isinstance(given, bytes | bytearray | Mapping):
        raise ConfigurationError(f"secrets must be a list of strings, got {type(secrets).__name__}")
    keys: list[bytes] = []
    for place, secret in enumerate(given):
        if not isinstance(secret, str) or not secret:
            what = "empty" if secret == "" else f"of type {type(secret).__name__}"
            raise ConfigurationError(f"secrets[{place}] is {what}; pass the signing secret of the subscription")
        try:
            keys.append(secret.encode())
        except UnicodeEncodeError:  # its message would show the secret
            raise ConfigurationError(
                f"secrets[{place}] is not valid Unicode; pass the signing secret of the subscription"
            ) from None
    if not keys:
        raise ConfigurationError("secrets is empty; pass the signing secret of the subscription")
    return tuple(keys)


def _headers(headers: Headers) -> dict[str, list[object]]:
    """Return the values of the headers that are read, by lower-case name."""
    found: dict[str, list[object]] = {
        name.lower(): [] for name in (SIGNATURE_HEADER, EVENT_ID_HEADER, EVENT_TYPE_HEADER)
    }
    items = getattr(headers, "items", None)
    pairs: Any = items() if callable(items) else headers
    try:
        for name, value in pairs:
            values = found.get(_text(name).lower())
            if values is not None:
                values.append(_text(value))
    except (TypeError, ValueError, AttributeError):
        raise InvalidRequestError(
            f"headers must be a mapping or a list of pairs, got {type(headers).__name__}; pass request.headers"
        ) from None
    return found


def _text(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, bytes | bytearray) else value


def _compare(header: str, found: Mapping[str, list[object]], member: str, expected: str) -> None:
    for value in found[header.lower()]:
        if value != expected:
            raise WebhookPayloadError(
                f"the header {header} differs from the member {member!r:.80} of the signed body; do not use the event"
            )


def _check_age(event: WebhookEvent, now: datetime, max_age: timedelta) -> None:
    age = now - event.timestamp
    if age > max_age:
        raise WebhookReplayError(
            f"the event is too old: timestamp {event.timestamp.isoformat()} is {age - max_age} beyond max_age_ms"
        )
    if -age > _FUTURE:
        raise WebhookReplayError(
            f"the event is in the future: timestamp {event.timestamp.isoformat()}; check the clock of this machine"
        )


def _bytes(body: object) -> bytes:
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise InvalidRequestError(f"body must be the bytes as received, got {type(body).__name__}")


def _aware(now: object) -> datetime:
    if isinstance(now, datetime) and now.tzinfo is not None:
        return now
    raise InvalidRequestError(f"now must be an aware datetime, got {now!r:.80}; use datetime.now(timezone.utc)")


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ConfigurationError(f"{name} must be a positive integer, got {value!r:.80}")
    return value


def _duration(name: str, value: Any) -> timedelta:
    milliseconds = _positive(name, value)
    if milliseconds > _LONGEST_MS:
        raise ConfigurationError(f"{name} must be {_LONGEST_MS} (100 years) or less, got {value!r:.80}")
    return timedelta(milliseconds=milliseconds)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _read_event(body: bytes) -> WebhookEvent:
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


public(WebhookEvent, SeenEvents, WebhookReceiver, sign_webhook, verify_webhook)
