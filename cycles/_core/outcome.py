"""What an answer proves: the one place where status and body become an outcome (semantics 8).

Status first, then body. Only the exact success status with a body that satisfies the schema is a success; a refusal
is whatever has a status of 400 to 599, with the protocol's code if the body carries one; everything else is
ambiguous. Nothing here raises for anything a server, or a proxy in front of it, can send.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from attrs import field, frozen

from cycles._core.protocol import RESERVATION_EXPIRED, error_code
from cycles._core.schema import Check

_RETRY_AFTER_DIGITS: Final = 12  # more seconds than any server can mean; keeps int() from being fed a novel


@frozen
class Success:
    """The exact success status and a body that satisfies the schema. Times are monotonic seconds.

    `content` is the body as it came: a tenth of the size of `body`, for whoever keeps it long.
    """

    body: Mapping[str, Any]
    request_id: str | None
    trace_id: str | None
    sent: float | None
    received: float
    content: bytes = field(repr=False)
    status: int = 200


@frozen
class RejectedResponse:
    """A status of 400 to 599. `code` is the protocol's code, or None where the body carried none.

    `conformant` tells whether the body satisfied the error schema: only then is it a verdict that ends a settlement.
    """

    status: int
    code: str | None
    message: str
    request_id: str | None = None
    trace_id: str | None = None
    details: Mapping[str, Any] | None = None
    evidence: Mapping[str, Any] | None = None
    retry_after_ms: int | None = None
    conformant: bool = True

    @property
    def transient(self) -> bool:
        """5xx and 429: the same request, with the same key, may succeed later."""
        return self.status >= 500 or self.status == 429

    @property
    def understood(self) -> bool:
        """Whether the error response is final: see `docs/protocol/responses.md#final-and-temporary-error-responses`."""
        row = error_code(self.code, self.status)
        return row.ends_settlement and row.status == self.status and self.conformant

    @property
    def expired(self) -> bool:
        """Whether the reservation has expired: status 410 alone, or the code alone in any other 4xx but 429."""
        return self.status == 410 or (self.code == RESERVATION_EXPIRED and not self.transient)


@frozen
class Ambiguous:
    """An answer that proves nothing; the outcome of a write is unknown, as after a timeout."""

    status: int
    message: str
    request_id: str | None = None
    trace_id: str | None = None


@frozen
class Unreachable:
    """No answer at all. `sent` is False where not a byte of the request can have left."""

    message: str
    cause: BaseException | None = None
    sent: bool = True
    trace_id: str | None = None


Outcome: TypeAlias = Success | RejectedResponse | Ambiguous | Unreachable
NoSuccess: TypeAlias = RejectedResponse | Ambiguous | Unreachable


def classify_response(
    *,
    success: int,
    check: Check | None,
    error_check: Check,
    status: int,
    header: Callable[[str], str | None],
    body: bytes,
    sent: float | None,
    received: float,
    redact: Callable[[str], str],
) -> Outcome:
    """What `status` and `body` prove, where `success` and a body passing `check` would be success.

    `header` looks a response header up by its lower-case name; `redact` takes secrets out of the server's words.
    """
    request_id, trace_id = header("x-request-id"), header("x-cycles-trace-id")
    if 400 <= status <= 599:
        return _refusal(status, body, error_check, header, redact)
    if status != success:
        what = "a redirect, which is never followed" if 300 <= status <= 399 else f"not {success}"
        return Ambiguous(status, f"the server answered {status}, {what}; nothing is proven by it", request_id, trace_id)
    value, problem = _value(body) if check is not None else ({}, None)
    if problem is None and check is not None:
        problem = check(value, "")
    if problem is not None:
        problem = redact(problem.removeprefix(": "))
        return Ambiguous(status, f"the answer does not satisfy the protocol: {problem}", request_id, trace_id)
    return Success(value, request_id, trace_id, sent, received, body, status)


def _refusal(
    status: int, body: bytes, error_check: Check, header: Callable[[str], str | None], redact: Callable[[str], str]
) -> RejectedResponse:
    value, problem = _object(body)
    request_id, trace_id = header("x-request-id"), header("x-cycles-trace-id")
    message = _text(value.get("message"), redact)
    return RejectedResponse(
        status,
        _text(value.get("error"), redact),
        message or f"the server answered {status} without an error of the protocol",
        _text(value.get("request_id"), redact) or request_id,
        _text(value.get("trace_id"), redact) or trace_id,
        _details(value.get("details"), redact),
        value.get("cycles_evidence") if isinstance(value.get("cycles_evidence"), dict) else None,
        parse_retry_after(header("retry-after")),
        conformant=problem is None and error_check(value, "") is None,
    )


def _text(value: Any, redact: Callable[[str], str]) -> str | None:
    return redact(value) if isinstance(value, str) and value else None


def _details(value: Any, redact: Callable[[str], str]) -> Mapping[str, Any] | None:
    try:
        return _redacted(value, redact) if isinstance(value, dict) else None
    except RecursionError:
        return None


def _value(body: bytes) -> tuple[Any, str | None]:
    """The JSON value in `body`, or what is wrong with it."""
    try:
        return json.loads(body), None
    except RecursionError:
        return {}, "its body is nested too deeply"
    except ValueError:
        return {}, "its body is not JSON" if body.strip() else "its body is empty"


def _object(body: bytes) -> tuple[dict[str, Any], str | None]:
    """The JSON object in `body`, or what is wrong with it."""
    value, problem = _value(body)
    return (value, problem) if isinstance(value, dict) else ({}, "its body is not a JSON object")


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(str(name)): _redacted(item, redact) for name, item in value.items()}
    return [_redacted(item, redact) for item in value] if isinstance(value, list) else value


def parse_retry_after(text: str | None) -> int | None:
    """Milliseconds from a `Retry-After` in whole seconds; None where it is missing or anything else (semantics 8)."""
    text = (text or "").strip()
    if not (text.isascii() and text.isdigit() and len(text) <= _RETRY_AFTER_DIGITS):
        return None
    return int(text) * 1000
