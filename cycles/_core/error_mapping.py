"""Turn outcomes into exceptions: every error response becomes a typed error in this file."""

from __future__ import annotations

from typing import Any

from cycles import _errors as errors
from cycles._core.denial_message import denial_message
from cycles._core.error_hints import HINT_OF, hint_for
from cycles._core.outcome import Ambiguous, NoSuccess, RejectedResponse, Unreachable
from cycles._core.protocol import (
    CREATE_RESERVATION,
    DENY,
    ERROR_CODES,
    ERROR_OF_STATUS,
    SPENDING,
    error_code,
)
from cycles._core.reserve_request import ReserveRequest


def error_of(outcome: NoSuccess, operation: str, request: ReserveRequest | None = None) -> errors.CyclesError:
    """Return the exception of an outcome that is no success: by its code if that is known, else by its status.

    A denial also says what `request` would have reserved.

    Any 409 in response to a create is a denial (`docs/protocol/decisions-and-caps.md#conflicts-on-create`).
    """
    if isinstance(outcome, RejectedResponse):
        return _error_response(outcome, operation, request)
    if isinstance(outcome, Ambiguous):
        return errors.AmbiguousResponseError(
            outcome.message, status=outcome.status, request_id=outcome.request_id, trace_id=outcome.trace_id
        )
    assert isinstance(outcome, Unreachable)
    return errors.TransportError(
        outcome.message, cause=outcome.cause, trace_id=outcome.trace_id, request_sent=outcome.sent
    )


def _error_response(response: RejectedResponse, operation: str, request: ReserveRequest | None) -> errors.ProtocolError:
    kind = _kind(response)
    if (
        operation == CREATE_RESERVATION
        and response.status == 409
        and not issubclass(kind, errors.ReservationDeniedError)
    ):
        is_mismatch = kind is errors.IdempotencyMismatchError
        kind = errors.ReservationKeyReusedError if is_mismatch else errors.ReservationDeniedError
    hint = hint_for(kind, response, spending=operation in SPENDING)
    if request is not None and issubclass(kind, errors.ReservationDeniedError):
        hint = _joined(denial_message(request, response.details), hint)
    return kind(
        response.message,
        hint=hint,
        status=response.status,
        code=response.code,
        request_id=response.request_id,
        trace_id=response.trace_id,
        details=response.details,
        retry_after_ms=response.retry_after_ms,
        evidence=_evidence(response),
        retryable=response.transient,
    )


def _joined(first: str, hint: str | None) -> str:
    return first if hint is None else f"{first}; {hint}"


def _kind(response: RejectedResponse) -> type[errors.ProtocolError]:
    if response.server_failed:
        return errors.ServerError
    if response.status == 429:
        return errors.RateLimitedError
    if response.code is None and response.status in ERROR_OF_STATUS:
        return ERROR_OF_STATUS[response.status]
    return error_code(response.code, response.status).error


def _evidence(response: RejectedResponse) -> Any:
    body = response.evidence
    if body is None or not all(isinstance(body.get(name), str) for name in ("evidence_id", "cycles_evidence_url")):
        return None
    from cycles._core.results import EvidenceRef

    return EvidenceRef.read(body)


def denial(
    decision: str,
    reason_code: str | None,
    *,
    request_id: str | None,
    trace_id: str | None,
    retry_after_ms: int | None,
    evidence: Any = None,
    context: str | None = None,
) -> errors.ReservationDeniedError:
    """Return the exception for a create response of status 200 whose decision is not ALLOW or ALLOW_WITH_CAPS.

    See `docs/protocol/decisions-and-caps.md#unknown-decisions`.
    """
    kind = ERROR_CODES[reason_code].error if reason_code in ERROR_CODES else errors.ReservationDeniedError
    if not issubclass(kind, errors.ReservationDeniedError):
        kind = errors.ReservationDeniedError
    if decision == DENY:
        message = f"the reservation was denied: {reason_code or 'no reason given'}"
    else:
        message = f"the server decided {decision!r:.80}, which this SDK does not know; it counts as a denial"
    return kind(
        message,
        hint=context if context is None else _joined(context, HINT_OF.get(kind)),
        status=200,
        code=reason_code,
        reason_code=reason_code,
        request_id=request_id,
        trace_id=trace_id,
        retry_after_ms=retry_after_ms,
        evidence=evidence,
    )
