"""All errors and warnings of the SDK, in one tree. They can be pickled and copied.

Inside the SDK outcomes are values. `_core/messages/errors.py` turns them into these errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cycles._version import public


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Return the known name that is most like a wrong one, if one is."""
    from difflib import get_close_matches  # late: only errors need it

    return get_close_matches(name, list(known), n=1)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" if a known name is like a wrong one; otherwise nothing."""
    near = near_names(name, known)
    return f"; did you mean {near[0]}?" if near else ""


class CyclesError(Exception):
    """Base class of all errors of this SDK.

    Attributes:
        http: Status, headers and elapsed time of the response (`HttpResponse`); None if no response came.
    """

    http: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        # The default protocol cannot call constructors with keyword-only parameters.
        return (_rebuild, (type(self), self.args, {name: _picklable(value) for name, value in vars(self).items()}))


def _picklable(value: Any) -> Any:
    """Return an exception that cannot be pickled, such as the cause of a TransportError, as one that can."""
    if not isinstance(value, BaseException) or isinstance(value, CyclesError):
        return value
    import pickle  # loaded already: the error is being pickled or copied

    try:
        pickle.loads(pickle.dumps(value))  # noqa: S301 - our own bytes: some causes can be dumped and not loaded
    except Exception:
        return OSError(f"{type(value).__qualname__}: {value}")
    return value


def _rebuild(cls: type[CyclesError], args: tuple[Any, ...], state: dict[str, Any]) -> CyclesError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(CyclesError, ValueError):
    """A setting is missing or wrong, or an extra is missing. The message names it and what to do."""


class InvalidRequestError(CyclesError, ValueError):
    """A value is wrong. Nothing was sent. The message names the value and what is allowed."""


class BulkActionError(CyclesError):
    """Some rows of a bulk action failed; the others were changed.

    Attributes:
        report: The `BulkReport`, with the rows that succeeded, failed and were skipped.
    """

    def __init__(self, message: str, *, report: Any = None) -> None:
        super().__init__(message)
        self.report = report


class UnknownModelError(InvalidRequestError):
    """No price is known for a model. The message names the model and how to pass its price."""


class TransportError(CyclesError):
    """No usable response. The outcome of a write is unknown, unless `request_sent` is False.

    Attributes:
        cause: The error of the connection, or None.
        request_id: The server's id of the request, if the response had one.
        trace_id: The trace id of the request, if one is known (32 hex digits).
        status: HTTP status of the unusable response, or None if there was none.
        request_sent: False if no byte of the request can have been sent.
        retryable: True: the same request, with the same idempotency key, may succeed later.
    """

    request_sent: bool = True
    retryable: bool = True

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
    """The response is inconclusive: a 2xx that does not match the schema, HTML, a truncated body, a redirect."""


class ProtocolError(CyclesError):
    """The server rejected the request. An error code that this SDK does not know is this class itself.

    Attributes:
        status: HTTP status.
        code: The protocol's error code, for example ``BUDGET_EXCEEDED``; None if the body has none.
        reason_code: The reason of a DENY, if the server returned a decision.
        message: The server's message. If it contains the API key, the key is redacted.
        hint: What the caller can do, if the SDK knows it. It is part of ``str(error)``.
        request_id: The server's id of the request, for its logs.
        trace_id: W3C trace id of the request (32 hex digits).
        details: The server's details, an empty mapping if there are none.
        deny_detail: Why the server denied a reservation (`DenyDetail`, protocol 0.1.26), or None.
        retry_after_ms: How long to wait before the next request, in milliseconds, or None.
        evidence: Reference to the signed evidence of the rejection, or None.
        retryable: True if the same request may succeed later.
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
        deny_detail: Any = None,
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
        self.deny_detail = deny_detail

    def __str__(self) -> str:
        if self.args != (self.message,):  # an integration has replaced it: model output is public
            return " ".join(map(str, self.args))
        data = [
            str(item)
            for item in (
                (self.code or self.reason_code) if self.message != self.code else None,
                f"HTTP {self.status}" if self.status is not None else None,
                f"request {self.request_id!s:.128}" if self.request_id else None,
            )
            if item
        ]
        message = f"{self.message!s:.500}"  # a server may send any length; `message` keeps all of it
        text = f"{message}; {self.hint}" if self.hint else message
        return f"{text} [{', '.join(data)}]" if data else text


class ReservationDeniedError(ProtocolError):
    """The server denied a reservation. The action must not run."""


class BudgetExceededError(ReservationDeniedError):
    """A scope has less budget left than the request needs."""


class OverdraftLimitExceededError(ReservationDeniedError):
    """A scope is over its limit, or the debt would exceed what is allowed."""


class DebtOutstandingError(ReservationDeniedError):
    """A scope has debt and no overdraft. It must be funded first."""


class BudgetFrozenError(ReservationDeniedError):
    """An operator froze the budget of a scope."""


class BudgetClosedError(ReservationDeniedError):
    """The budget of a scope is closed permanently."""


class TenantClosedError(ReservationDeniedError):
    """The tenant is closed."""


class ActionQuotaExceededError(ReservationDeniedError):
    """The quota of the kind of action, or of its risk class, is used up. `quota` is the `QuotaViolation`, or None."""

    @property
    def quota(self) -> Any:
        """The quota that the action would exceed."""
        return None if self.deny_detail is None else self.deny_detail.quota_violation


class ActionNotPermittedError(ReservationDeniedError):
    """A policy does not permit this kind of action. `code` is ACTION_KIND_DENIED or ACTION_KIND_NOT_ALLOWED."""


class ObservedReservationError(ProtocolError):
    """The server only observed the reservation, as its `decision` says; ``on_observed="run"`` runs the block."""

    decision: str | None = None


class ApprovalDeniedError(ReservationDeniedError):
    """The function of `approve=` did not approve a reservation. `__cause__` is what it raised, if it failed.

    Attributes:
        request_sent: Always False: nothing was sent to the server.
    """

    request_sent = False


class UnauthorizedError(ProtocolError):
    """The API key is missing, unknown, revoked or expired."""


class ForbiddenError(ProtocolError):
    """The API key is valid, but the tenant or the reservation belongs to another key or tenant."""


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
    """The idempotency key of a reservation was used before for another one."""


class ReservationExpiredError(ProtocolError):
    """The lease (and its grace period) is over."""


class ReservationFinalizedError(ProtocolError):
    """The reservation is already committed or released."""


class MaxExtensionsExceededError(ProtocolError):
    """The server does not extend this lease any more."""


class RateLimitedError(ProtocolError):
    """The server limits the rate of requests. `retry_after_ms` says how long to wait, if the response contains it."""


class ServerError(ProtocolError):
    """The server failed (5xx). The outcome of a write is unknown."""


class GuardFinalizedError(CyclesError):
    """This guard was already committed or released; nothing was sent."""


class LeaseLostError(CyclesError):
    """The lease was lost while the block ran. `__cause__` is the failure that stopped the heartbeat."""

    def __init__(self, message: str, *, reservation_id: str | None = None) -> None:
        super().__init__(message)
        self.reservation_id = reservation_id


class ToolNotAllowedError(CyclesError):
    """The caps of the reservation do not allow this tool."""

    def __init__(self, message: str, *, tool: str | None = None) -> None:
        super().__init__(message)
        self.tool = tool


class StepsExhaustedError(CyclesError):
    """The caps of the reservation allow no further step. `limit` is the number of steps that they allow."""

    def __init__(self, message: str, *, limit: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit


class ReservationNotActiveError(CyclesError):
    """The idempotency key replays a reservation that has ended. The block does not run a second time.

    Attributes:
        reservation_id: Id of the reservation.
        status: How the first run ended: COMMITTED, RELEASED or EXPIRED; None if the server did not report it.
        committed: The amount that the first run committed, or None.
        finalized_at_ms: When the first run ended, in milliseconds of server time, or None.
    """

    status: str | None = None
    committed: Any = None
    finalized_at_ms: int | None = None

    def __init__(
        self,
        message: str,
        *,
        reservation_id: str | None = None,
        status: str | None = None,
        committed: Any = None,
        finalized_at_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.reservation_id = reservation_id
        self.status = status
        self.committed = committed
        self.finalized_at_ms = finalized_at_ms


class StoreError(CyclesError):
    """An operation of a journal store failed; `__cause__` is what the store reported."""


class JournalUnavailableError(CyclesError):
    """The journal's store does not respond, and ``journal_outage="refuse"`` allows no reservation without it."""


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
    """A block ended and no cost was reported, so its budget was released."""


public(*(value for value in tuple(globals().values()) if isinstance(value, type) and value.__module__ == __name__))
