"""Outcomes to exceptions: the one table from which every error of the server becomes a typed one."""

from __future__ import annotations

from typing import Any, Final

from cycles import _errors as errors
from cycles._core.outcome import Ambiguous, NoSuccess, RejectedResponse, Unreachable
from cycles._core.protocol import (
    CREATE_RESERVATION,
    DENY,
    ERROR_CODES,
    ERROR_OF_STATUS,
    SPENDING,
    error_code,
)

_HINTS: Final = {
    errors.UnauthorizedError: "the server does not take this key; check api_key / CYCLES_API_KEY",
    errors.ForbiddenError: "a key serves its own tenant only; check tenant / CYCLES_TENANT and the key",
    errors.BudgetExceededError: "less is left than that; client.balances() tells how much",
}


def error_of(outcome: NoSuccess, operation: str) -> errors.CyclesError:
    """The exception that tells a user about an outcome that is no success.

    By the code if it is known, else by the status; any 409 on a create is a denial (decisions 5).
    """
    if isinstance(outcome, RejectedResponse):
        return _refused(outcome, operation)
    if isinstance(outcome, Ambiguous):
        return errors.AmbiguousResponseError(
            outcome.message, status=outcome.status, request_id=outcome.request_id, trace_id=outcome.trace_id
        )
    assert isinstance(outcome, Unreachable)
    return errors.TransportError(outcome.message, cause=outcome.cause, trace_id=outcome.trace_id)


def _refused(refusal: RejectedResponse, operation: str) -> errors.ProtocolError:
    kind = _kind(refusal)
    if (
        operation == CREATE_RESERVATION
        and refusal.status == 409
        and not issubclass(kind, errors.ReservationDeniedError)
    ):
        is_mismatch = kind is errors.IdempotencyMismatchError
        kind = errors.ReservationKeyReusedError if is_mismatch else errors.ReservationDeniedError
    return kind(
        refusal.message,
        hint=_hint(kind, refusal, operation),
        status=refusal.status,
        code=refusal.code,
        request_id=refusal.request_id,
        trace_id=refusal.trace_id,
        details=refusal.details,
        retry_after_ms=refusal.retry_after_ms,
        evidence=_evidence(refusal),
        retryable=refusal.transient,
    )


def _hint(kind: type[errors.ProtocolError], refusal: RejectedResponse, operation: str) -> str | None:
    """What the user can do about it, where the server's own words do not say it."""
    if kind is errors.NotFoundError and operation in SPENDING:
        return "check the subject and base_url, or have a budget made for it"
    if kind is errors.UnitMismatchError:
        units = (refusal.details or {}).get("expected_units")
        return f"give an amount in {' or '.join(map(str, units))}" if isinstance(units, list) and units else None
    return _HINTS.get(kind)


def _kind(refusal: RejectedResponse) -> type[errors.ProtocolError]:
    if refusal.status >= 500:
        return errors.ServerError
    if refusal.status == 429:
        return errors.RateLimitedError
    if refusal.code is None and refusal.status in ERROR_OF_STATUS:
        return ERROR_OF_STATUS[refusal.status]
    return error_code(refusal.code, refusal.status).error


def _evidence(refusal: RejectedResponse) -> Any:
    body = refusal.evidence
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
) -> errors.ReservationDeniedError:
    """The exception for a create answered 200 with anything but ALLOW or ALLOW_WITH_CAPS (decisions 5)."""
    kind = ERROR_CODES[reason_code].error if reason_code in ERROR_CODES else errors.ReservationDeniedError
    if not issubclass(kind, errors.ReservationDeniedError):
        kind = errors.ReservationDeniedError
    if decision == DENY:
        message = f"the reservation was denied: {reason_code or 'no reason given'}"
    else:
        message = f"the server decided {decision!r}, which this SDK does not know; it counts as a denial"
    return kind(
        message,
        status=200,
        code=reason_code,
        reason_code=reason_code,
        request_id=request_id,
        trace_id=trace_id,
        retry_after_ms=retry_after_ms,
        evidence=evidence,
    )
