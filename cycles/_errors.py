"""Every error users can meet, in one tree.

Inside the SDK outcomes are values; the facade turns them into these exactly once. All of them pickle and copy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from cycles._version import public


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an exception. One that accepts no notes, such as a frozen dataclass, stays unchanged."""
    with contextlib.suppress(Exception):
        error.add_note(note)


class CyclesError(Exception):
    """Base of everything this SDK raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only constructors do not survive the default protocol; state does.
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(cls: type[CyclesError], args: tuple[Any, ...], state: dict[str, Any]) -> CyclesError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(CyclesError, ValueError):
    """The client cannot work as configured; the message names the setting and how to give it."""


class InvalidRequestError(CyclesError, ValueError):
    """Refused before anything was sent: the message names the field and the bound it breaks."""


class BulkActionError(CyclesError):
    """Some rows of a bulk action failed; the others were changed.

    Attributes:
        report: The `BulkReport`, with the rows that succeeded, failed and were skipped.
    """

    def __init__(self, message: str, *, report: Any = None) -> None:
        super().__init__(message)
        self.report = report


class UnknownModelError(InvalidRequestError):
    """No price is known for a model; the message names the model and how to give its price."""


class TransportError(CyclesError):
    """No usable answer came back. For a write the outcome is unknown; a retry must reuse its idempotency key.

    Attributes:
        cause: What the connection reported, or None.
        request_id: The server's id of the request, if an answer carried one.
        trace_id: The trace id of the request, if one is known (32 hex digits).
        status: HTTP status of the unusable answer, or None if none came.
        request_sent: False if it is certain that the server has received nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        cause: BaseException | None = None,
        status: int | None = None,
        request_id: str | None = None,
        trace_id: str | None = None,
        request_sent: bool = True,
    ) -> None:
        super().__init__(message)
        self.cause = cause
        self.status = status
        self.request_id = request_id
        self.trace_id = trace_id
        self.request_sent = request_sent


class AmbiguousResponseError(TransportError):
    """An answer came that proves nothing: a 2xx off the schema, HTML, a truncated body, a redirect."""


class ProtocolError(CyclesError):
    """The server understood the request and refused it. An unknown error code is this class itself.

    Attributes:
        status: HTTP status.
        code: The protocol's error code, for example ``BUDGET_EXCEEDED``; None where the body carried none.
        reason_code: Why a decision was DENY, where the refusal came as a decision.
        message: The server's own words (with the API key redacted, should the server echo it).
        hint: What to do about it, where the SDK knows; part of ``str(error)``.
        request_id: The server's id of the request, for its logs.
        trace_id: W3C trace id of the request (32 hex digits).
        details: Further facts the server gave, an empty mapping if none.
        retry_after_ms: When the server wants to be asked again at the earliest, in milliseconds.
        evidence: Reference to the signed evidence of the refusal, or None.
        retryable: True where the same request may succeed later without being changed.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        status: int | None = None,
        code: str | None = None,
        reason_code: str | None = None,
        request_id: str | None = None,
        trace_id: str | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after_ms: int | None = None,
        evidence: Any = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status
        self.code = code
        self.reason_code = reason_code
        self.request_id = request_id
        self.trace_id = trace_id
        self.details: dict[str, Any] = dict(details or {})
        self.retry_after_ms = retry_after_ms
        self.evidence = evidence
        self.retryable = retryable

    def __str__(self) -> str:
        facts = [
            str(fact)
            for fact in (
                (self.code or self.reason_code) if self.message != self.code else None,
                f"HTTP {self.status}" if self.status is not None else None,
                f"request {self.request_id}" if self.request_id else None,
            )
            if fact
        ]
        words = f"{self.message}; {self.hint}" if self.hint else self.message
        return f"{words} [{', '.join(facts)}]" if facts else words


class ReservationDeniedError(ProtocolError):
    """The server said no to a reservation; the action must not run."""


class BudgetExceededError(ReservationDeniedError):
    """A scope has less budget left than was asked for."""


class OverdraftLimitExceededError(ReservationDeniedError):
    """A scope is over its limit, or the debt would exceed what is allowed."""


class DebtOutstandingError(ReservationDeniedError):
    """A scope has debt and no overdraft allowed; it must be funded first."""


class BudgetFrozenError(ReservationDeniedError):
    """An operator froze the budget of a scope."""


class BudgetClosedError(ReservationDeniedError):
    """The budget of a scope is closed for good."""


class TenantClosedError(ReservationDeniedError):
    """The tenant itself is closed."""


class UnauthorizedError(ProtocolError):
    """The API key is missing, unknown, revoked or expired."""


class ForbiddenError(ProtocolError):
    """The API key is valid, but the tenant or the reservation is somebody else's."""


class InsufficientPermissionsError(ForbiddenError):
    """The API key is valid, but it lacks a permission that the operation needs."""


class DuplicateResourceError(ProtocolError):
    """An object with this id exists already, with other values."""


class NotFoundError(ProtocolError):
    """No such reservation, or no budget at any scope of the subject."""


class UnitMismatchError(ProtocolError):
    """The budget is kept in another unit; `details` names the scope and the expected units."""


class IdempotencyMismatchError(ProtocolError):
    """The idempotency key was used before with another payload."""


class ReservationKeyReusedError(IdempotencyMismatchError, ReservationDeniedError):
    """No reservation: its idempotency key was used before for another one."""


class ReservationExpiredError(ProtocolError):
    """The lease (and its grace period) is over."""


class ReservationFinalizedError(ProtocolError):
    """The reservation is already committed or released."""


class MaxExtensionsExceededError(ProtocolError):
    """The server will not extend this lease any more."""


class RateLimitedError(ProtocolError):
    """The server throttles; `retry_after_ms` says for how long, if it told."""


class ServerError(ProtocolError):
    """The server failed (5xx). The outcome of a write is unknown."""


class GuardFinalizedError(CyclesError):
    """This guard was already committed or released; nothing was sent."""


class LeaseLostError(CyclesError):
    """The heartbeat gave the lease up while the work was going on; `__cause__` tells why."""

    def __init__(self, message: str, *, reservation_id: str | None = None) -> None:
        super().__init__(message)
        self.reservation_id = reservation_id


class ToolNotAllowedError(CyclesError):
    """The caps of the reservation do not allow this tool."""

    def __init__(self, message: str, *, tool: str | None = None) -> None:
        super().__init__(message)
        self.tool = tool


class StepsExhaustedError(CyclesError):
    """The caps of the reservation grant no further step; `limit` is how many they granted."""

    def __init__(self, message: str, *, limit: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit


class ReservationNotActiveError(CyclesError):
    """The idempotency key replayed a reservation that is no longer active; the block does not run a second time."""

    def __init__(self, message: str, *, reservation_id: str | None = None) -> None:
        super().__init__(message)
        self.reservation_id = reservation_id


class WebhookError(CyclesError):
    """A webhook delivery was rejected; `status` is the HTTP status that the receiver should respond with."""

    status = 400


class WebhookSignatureError(WebhookError):
    """The signature is missing, malformed, doubled or wrong. One message covers all four cases."""

    status = 401


class WebhookPayloadError(WebhookError):
    """The body is too large or is no event, or a header contradicts it. The message names the member."""


class WebhookReplayError(WebhookError):
    """The event is older than `max_age_ms` allows, or its timestamp is in the future."""


class EvidenceError(CyclesError):
    """Evidence is not authentic.

    Attributes:
        verdict: The `EvidenceVerdict` with the disposition and its reason; None if the document was rejected.
    """

    def __init__(self, message: str, *, verdict: Any = None) -> None:
        super().__init__(message)
        self.verdict = verdict


class EvidenceRejectedError(EvidenceError, ValueError):
    """The document is no evidence envelope, so no disposition applies to it.

    Attributes:
        rule: The rule that it breaks, for example ``json``, ``number`` or ``payload_schema``.
    """

    def __init__(self, message: str, *, rule: str) -> None:
        super().__init__(message)
        self.rule = rule


class UncommittedGuardWarning(UserWarning):
    """A block ended without anyone saying what the action cost; its budget was released."""


public(*(value for value in tuple(globals().values()) if isinstance(value, type) and value.__module__ == __name__))
