"""Requests as values, built from the caller's arguments.

A `Call` names an operation of the protocol and has its path, query and body as JSON values. `_wire.wire` checks it
against the schema and turns it into bytes. Idempotency keys are made in this file only.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, TypeGuard

from attrs import define, field

from cycles._core.protocol import EXTEND_RESERVATION, RELEASE_RESERVATION
from cycles._core.values.json_values import is_text
from cycles._errors import InvalidRequestError

DEFAULT_TTL_MS: Final = 60_000
DEFAULT_GRACE_MS: Final = 5_000  # the default of servers; the client sends no grace period by default


@define  # not frozen, like other values that each call makes: to set a frozen member takes five times as long
class CallOptions:
    """What the requests of one guard, or of one call of an operation, have in common. Never changed.

    Attributes:
        trace_id: W3C trace id (32 hex digits), if they have one.
        timeout_s: Timeout of each attempt in seconds; None is the client's own.
        headers: Headers that are added to those of every request.
        max_retries: How often a write is sent again; None is the client's own.
        trace: The trace of the guard, if the client has a tracer.
    """

    trace_id: str | None = None
    timeout_s: float | None = None
    headers: Mapping[str, str] = field(default=MappingProxyType({}), repr=False)
    max_retries: int | None = None
    trace: Any = field(default=None, repr=False)


NO_OPTIONS: Final = CallOptions()


def new_trace_id() -> str:
    """Return a new W3C trace id: 32 random hex digits."""
    return secrets.token_hex(16)


@define
class Call:
    """One request, never changed. `timeout_s` bounds the whole attempt in seconds; None is the timeout of its options.

    `trace_headers` replace the ``traceparent`` of its trace id.
    """

    operation: str
    path: Mapping[str, str] = field(factory=dict)
    query: Mapping[str, Any] = field(factory=dict)
    body: Mapping[str, Any] | None = None
    options: CallOptions = NO_OPTIONS
    trace_headers: Mapping[str, str] | None = field(default=None, kw_only=True, repr=False)
    timeout_s: float | None = None

    @property
    def trace_id(self) -> str | None:
        """The trace id of the request."""
        return self.options.trace_id


def new_key() -> str:
    """Return a new idempotency key: 128 random bits."""
    return secrets.token_hex(16)


def new_keys(number: int) -> list[str]:
    """Return new idempotency keys from one read of random bytes: at each read, another thread may take its turn.

    They are never kept for later guards: a copy of the process, or of its machine, would use the same keys.
    """
    digits = secrets.token_hex(16 * number)
    return [digits[start : start + 32] for start in range(0, 32 * number, 32)]


@define
class Prepared:
    """One request as HTTP, ready to be sent. Nothing changes it.

    Attributes:
        method: The method.
        target: The quoted path and its query, relative to the base URL.
        headers: All but those that depend on the connection.
        content: The body, or no bytes.
    """

    method: str
    target: str
    headers: Sequence[tuple[bytes, bytes]]
    content: bytes = field(repr=False)


def check_key(key: str) -> str:
    """Check a caller's idempotency key (`docs/protocol/idempotency.md#keys`) and return it.

    Raises:
        InvalidRequestError: not 1 to 256 characters, or with control characters.
    """
    if not isinstance(key, str) or not 1 <= len(key) <= 256:
        raise InvalidRequestError(f"idempotency_key must be a string of 1 to 256 characters, got {key!r:.80}")
    # They would break a line of a log, or of a file in which an operator looks for the key.
    if any(ord(character) < 32 or ord(character) == 127 for character in key):
        raise InvalidRequestError("idempotency_key must not contain control characters: remove line breaks and tabs")
    if not is_text(key):
        raise InvalidRequestError("idempotency_key must be Unicode text: it has half of a surrogate pair")
    return key


def is_id(value: object) -> TypeGuard[str]:
    """Return whether the value can be one segment of a path (`docs/protocol/idempotency.md#ids-in-paths`)."""
    return isinstance(value, str) and value not in ("", ".", "..") and is_text(value)


def check_id(name: str, value: str) -> str:
    """Check an id that becomes one segment of a path, and return it.

    Raises:
        InvalidRequestError: it cannot be one.
    """
    if not is_id(value):
        raise InvalidRequestError(f"{name} is not an id: {value!r:.80}; pass it as the server returned it")
    return value


def aware(name: str, value: datetime) -> datetime:
    """Check that a datetime is aware, and return it.

    Raises:
        InvalidRequestError: it is naive; the message says how to make it aware.
    """
    if not isinstance(value, datetime):
        raise InvalidRequestError(f"{name} must be an aware datetime, got {value!r:.80}")
    if value.utcoffset() is None:
        raise InvalidRequestError(
            f"{name} has no time zone: {value.isoformat()}; write datetime(..., tzinfo=timezone.utc) or .astimezone()"
        )
    return value


def without_none(**members: Any) -> dict[str, Any]:
    """Return the members that are not None; an absent member is never sent as null."""
    return {name: value for name, value in members.items() if value is not None}


def release_call(reservation_id: str, key: str, reason: str | None, options: CallOptions = NO_OPTIONS) -> Call:
    """Return the release request. A reason longer than 256 characters is truncated: it must not prevent it."""
    body = without_none(idempotency_key=key, reason=reason[:256] if reason else None)
    return Call(RELEASE_RESERVATION, {"reservation_id": reservation_id}, body=body, options=options)


def extend_call(
    reservation_id: str, key: str, extend_by_ms: int, timeout_s: float | None = None, options: CallOptions = NO_OPTIONS
) -> Call:
    """Return the request that moves the end of the lease by `extend_by_ms` milliseconds."""
    body = {"idempotency_key": key, "extend_by_ms": extend_by_ms}
    path = {"reservation_id": reservation_id}
    return Call(EXTEND_RESERVATION, path, body=body, timeout_s=timeout_s, options=options)
