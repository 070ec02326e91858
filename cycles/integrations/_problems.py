"""Turn errors into problem details (RFC 9457): status, headers and body. Used by `asgi` and `fastapi`.

Nothing else of an error is sent: messages of a server name scopes and amounts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from attrs import field, frozen

import cycles
from cycles import InvalidRequestError
from cycles.integrations._shared import code_of

CONTENT_TYPE: Final = "application/problem+json"
_STATUSES: Final = {
    "BUDGET_EXCEEDED": 402,  # not 429: clients retry that automatically, and no retry funds a budget
    "RUN_LIMIT": 402,
    "POOL_LIMIT": 402,
    "OVERDRAFT_LIMIT_EXCEEDED": 402,
    "DEBT_OUTSTANDING": 402,
    "LIMIT_EXCEEDED": 429,
    "RESERVATION_NOT_ACTIVE": 409,
    "IDEMPOTENCY_MISMATCH": 409,
    "UNAVAILABLE": 503,
    "LEASE_LOST": 503,
    "INTERNAL_ERROR": 500,
    "INVALID_SUBJECT": 400,
}
_DENIED: Final = 403
_RETRY_UNAVAILABLE_S: Final = 1  # for 503, if nothing better is known

_NAMED: Final = (
    (cycles.ToolNotAllowedError, "TOOL_NOT_ALLOWED"),
    (cycles.StepsExhaustedError, "STEPS_EXHAUSTED"),
    (cycles.ReservationNotActiveError, "RESERVATION_NOT_ACTIVE"),
    (cycles.ReservationKeyReusedError, "IDEMPOTENCY_MISMATCH"),
    (cycles.IdempotencyMismatchError, "IDEMPOTENCY_MISMATCH"),
    (cycles.RateLimitedError, "LIMIT_EXCEEDED"),
    (cycles.TransportError, "UNAVAILABLE"),
    (cycles.ServerError, "UNAVAILABLE"),
    (cycles.LeaseLostError, "LEASE_LOST"),
)


@frozen
class Problem:
    """One response: status, code, and more headers than content type and cache control."""

    status: int
    code: str
    members: Mapping[str, Any] = field(factory=dict)
    retry_after_s: int | None = None

    @property
    def body(self) -> bytes:
        """The JSON object."""
        members = {
            "type": f"urn:cycles:problem:{self.code.lower().replace('_', '-')}",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "code": self.code,
            **self.members,
        }
        return json.dumps(members, separators=(",", ":")).encode()

    @property
    def headers(self) -> dict[str, str]:
        """The headers, with lower-case names."""
        headers = {"content-type": CONTENT_TYPE, "cache-control": "no-store"}
        return headers if self.retry_after_s is None else {**headers, "retry-after": str(self.retry_after_s)}


def checked_statuses(statuses: Mapping[str, int] | None) -> dict[str, int]:
    """Return the statuses of an application.

    Raises:
        InvalidRequestError: if it is no mapping of codes to statuses from 400 to 599.
    """
    if statuses is not None and not isinstance(statuses, Mapping):
        raise InvalidRequestError(f"statuses must be a mapping of codes to HTTP statuses, got {statuses!r:.80}")
    for code, status in (statuses or {}).items():
        if not isinstance(code, str) or type(status) is not int or not 400 <= status <= 599:
            raise InvalidRequestError(f"statuses must map codes to 400 to 599, got {code!r:.80}: {status!r:.80}")
    return dict(statuses or {})


def problem_of(error: Exception, statuses: Mapping[str, int] | None = None) -> Problem:
    """Return the response to an error; an error that is the service's own fault has no ids."""
    code = _code(error)
    waits_for_window = code == "ACTION_QUOTA_EXCEEDED" and _window_s(error) is not None
    status = {**_STATUSES, **(statuses or {})}.get(code, 429 if waits_for_window else _DENIED)
    members = {} if code == "INTERNAL_ERROR" else {name: _text(error, name) for name in ("request_id", "trace_id")}
    wait_s = _window_s(error) if waits_for_window else _retry_after_s(error)
    if wait_s is None and status == 503:
        wait_s = _RETRY_UNAVAILABLE_S
    return Problem(status, code, {name: value for name, value in members.items() if value}, wait_s)


def close_code_of(error: Exception) -> int:
    """Return the code that closes a websocket: 1013 (try again later) for a throttle or an outage, else 1008."""
    return {429: 1013, 503: 1013, 500: 1011}.get(problem_of(error).status, 1008)


def _code(error: Exception) -> str:
    for kind, code in _NAMED:
        if isinstance(error, kind):
            return code
    return code_of(error) if isinstance(error, cycles.ReservationDeniedError) else "INTERNAL_ERROR"


def _text(error: Exception, name: str) -> str | None:
    value = getattr(error, name, None)
    return value if isinstance(value, str) else None


def _retry_after_s(error: Exception) -> int | None:
    wait_ms = getattr(error, "retry_after_ms", None)
    return None if not isinstance(wait_ms, int) else max(0, -(-wait_ms // 1000))


def _window_s(error: Exception) -> int | None:
    """Return the seconds until the window of a quota resets; None if the response does not say when."""
    resets_at = getattr(getattr(error, "quota", None), "resets_at", None)
    if not isinstance(resets_at, datetime):
        return _retry_after_s(error)
    return max(0, math.ceil((resets_at - datetime.now(UTC)).total_seconds()))
