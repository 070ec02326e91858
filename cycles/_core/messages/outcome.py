"""Classify server responses: HTTP status and body in, `Outcome` out. See `docs/protocol/responses.md`.

The status comes first, then the body. Only the exact success status with a valid body is a success. A status of 400 to
599 is an error response, with the protocol's code if the body has one. Any other response is ambiguous. Nothing that a
server or a proxy sends raises an exception.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from attrs import define, field, frozen

from cycles._core.messages.schema import Check
from cycles._core.protocol import INTERNAL_ERROR, RESERVATION_EXPIRED, error_code
from cycles._core.values.result_base import HttpResponse

_scan: Final[Callable[[str, int], tuple[Any, int]]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_RETRY_AFTER_DIGITS: Final = 12  # more seconds than any server can mean; bounds the input of int()


@define
class Success:
    """The exact success status and a body that satisfies the schema. Times are monotonic seconds. Nothing changes it.

    `content` is the unparsed body, which needs a tenth of the memory of `body`. `replacement_kind` is set if the server
    deprecates the kind of the action.
    """

    body: Mapping[str, Any]
    request_id: str | None
    trace_id: str | None
    sent: float | None
    received: float
    content: bytes = field(repr=False)
    status: int = 200
    replacement_kind: str | None = None
    http: HttpResponse | None = field(default=None, eq=False, repr=False)

    @property
    def ids(self) -> dict[str, Any]:
        """The members of a result that are not in its body."""
        return {"request_id": self.request_id, "trace_id": self.trace_id, "http": self.http}


@frozen
class RejectedResponse:
    """An error response: a status of 400 to 599. `code` is the protocol's code, or None if the body has none.

    `conformant` is True if the body satisfies the error schema: only then can the response end a settlement.
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
    is_page: bool = False
    """Whether the body is a text that is no JSON object: a page that a proxy or a web framework wrote."""
    http: HttpResponse | None = field(default=None, eq=False, repr=False)

    @property
    def is_store_failure(self) -> bool:
        """Whether a 401 means that the server cannot check keys, because its store is down."""
        return self.status == 401 and self.message == INTERNAL_ERROR

    @property
    def server_failed(self) -> bool:
        """Whether the server failed: 5xx, or a store that is down."""
        return self.status >= 500 or self.is_store_failure

    @property
    def transient(self) -> bool:
        """A failing server and 429: the same request, with the same key, may succeed later."""
        return self.server_failed or self.status == 429

    @property
    def understood(self) -> bool:
        """Whether the error response is final: see `docs/protocol/responses.md#final-and-temporary-error-responses`."""
        row = error_code(self.code, self.status)
        return row.ends_settlement and row.status == self.status and self.conformant

    @property
    def expired(self) -> bool:
        """Whether the reservation has expired: the code with any 4xx but 429, or the status 410 without a page."""
        return not self.transient and (self.code == RESERVATION_EXPIRED or (self.status == 410 and not self.is_page))


@frozen
class Ambiguous:
    """A response that does not match the protocol. The outcome of a write is unknown, as after a timeout."""

    status: int
    message: str
    request_id: str | None = None
    trace_id: str | None = None
    http: HttpResponse | None = field(default=None, eq=False, repr=False)


@frozen
class Unreachable:
    """No complete response. `sent` is False if no byte was sent.

    `queued`: because the client held the request back. It says nothing about the server: no connection slot was free,
    there was no API key, or the journal did not take the record.
    """

    message: str
    cause: BaseException | None = None
    sent: bool = True
    trace_id: str | None = None
    queued: bool = False


Outcome: TypeAlias = Success | RejectedResponse | Ambiguous | Unreachable
NoSuccess: TypeAlias = RejectedResponse | Ambiguous | Unreachable


@define
class Reply:
    """A complete response, not yet classified. Times are monotonic seconds. Nothing changes it.

    `sent` was taken with an open connection, just before the first byte was written, and `received` with the last
    byte of the body: the wait for a connection is not part of the round trip (docs/protocol/heartbeat.md).
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    sent: float
    received: float
    _found: dict[bytes, bytes] | None = field(default=None, eq=False, repr=False)

    def header(self, name: str) -> str | None:
        """Return the first value of the header `name` (any case), or None."""
        found = self._found
        if found is None:
            found = self._found = dict(reversed(self.headers))
        value = found.get(name.lower().encode())
        return None if value is None else value.decode("latin-1")


def classify_response(
    reply: Reply, *, success: int, check: Check | None, error_check: Check, redact: Callable[[str], str]
) -> Outcome:
    """Classify one response.

    Args:
        reply: The response.
        success: The one status that is a success.
        check: Checks the body of a success; None if it has none.
        error_check: Checks the body of an error response.
        redact: Removes secrets from the server's text.
    """
    status, body = reply.status, reply.body
    http = HttpResponse(status, reply.headers, reply.received - (reply.sent or reply.received))
    # The status decides first: a proxy may send a body that looks like a success with any status.
    if 400 <= status <= 599:
        return _rejected(reply, error_check, redact, http)
    request_id, trace_id = reply.header("x-request-id"), reply.header("x-cycles-trace-id")
    if status != success:
        what = "a redirect, which is never followed" if 300 <= status <= 399 else f"not {success}"
        message = f"the server returned status {status}, {what}; the outcome is unknown"
        return Ambiguous(status, message, request_id, trace_id, http)
    # A body that is not checked is not read, so that it cannot fail.
    value, problem = _value(body) if check is not None else ({}, None)
    if problem is None and check is not None:
        problem = check(value, "")
    if problem is not None:
        problem = redact(problem.removeprefix(": "))
        return Ambiguous(status, f"the response does not match the protocol: {problem}", request_id, trace_id, http)
    if isinstance(value, dict) and "deny_detail" in value:  # text for people, which errors show
        value = {**value, "deny_detail": _details(value["deny_detail"], redact)}
    replacement = reply.header("x-cycles-deprecated-kind")
    return Success(value, request_id, trace_id, reply.sent, reply.received, body, status, replacement, http)


def _rejected(reply: Reply, error_check: Check, redact: Callable[[str], str], http: HttpResponse) -> RejectedResponse:
    # An error body that is no JSON is still an error: the status alone says so.
    value, problem = _object(reply.body)
    message = _text(value.get("message"), redact)
    return RejectedResponse(
        reply.status,
        _text(value.get("error"), redact),
        message or f"the server returned status {reply.status} without an error of the protocol",
        _text(value.get("request_id"), redact) or reply.header("x-request-id"),
        _text(value.get("trace_id"), redact) or reply.header("x-cycles-trace-id"),
        _details(value.get("details"), redact),
        value.get("cycles_evidence") if isinstance(value.get("cycles_evidence"), dict) else None,
        parse_retry_after(reply.header("retry-after")),
        conformant=problem is None and error_check(value, "") is None,
        is_page=problem is not None and bool(reply.body.strip()),
        http=http,
    )


def _text(value: Any, redact: Callable[[str], str]) -> str | None:
    return redact(value) if isinstance(value, str) and value else None


def _details(value: Any, redact: Callable[[str], str]) -> Mapping[str, Any] | None:
    try:
        return _redacted(value, redact) if isinstance(value, dict) else None
    except RecursionError:
        return None


def _value(body: bytes) -> tuple[Any, str | None]:
    """Return the JSON value in `body`, and what is wrong with it."""
    try:
        # Without `json.loads`, which looks for the encoding and for white space first.
        text = body.decode()
        value, end = _scan(text, 0)
        if end == len(text):
            return value, None
    except (ValueError, StopIteration, RecursionError):
        pass  # not plain: white space around the value, another encoding, or an error
    try:
        return json.loads(body), None
    except RecursionError:
        return {}, "its body is nested too deeply"
    except ValueError:
        return {}, "its body is not JSON" if body.strip() else "its body is empty"


def _object(body: bytes) -> tuple[dict[str, Any], str | None]:
    """Return the JSON object in `body`, and what is wrong with it."""
    value, problem = _value(body)
    return (value, problem) if isinstance(value, dict) else ({}, "its body is not a JSON object")


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(str(name)): _redacted(item, redact) for name, item in value.items()}
    return [_redacted(item, redact) for item in value] if isinstance(value, list) else value


def parse_retry_after(text: str | None) -> int | None:
    """Return the milliseconds of a `Retry-After` in integer seconds; None if it is missing or has another form."""
    text = (text or "").strip()
    # `isdigit` alone accepts digits of other scripts. A date, the other form of HTTP, counts as missing: clocks differ.
    if not (text.isascii() and text.isdigit() and len(text) <= _RETRY_AFTER_DIGITS):
        return None
    return int(text) * 1000
