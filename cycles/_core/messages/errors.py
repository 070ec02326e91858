"""Turn outcomes into exceptions: every error response becomes a typed error in this file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cycles import _errors as errors
from cycles._core.messages.denial_message import denial_message
from cycles._core.messages.error_hints import FUND_HINT, HINT_OF, hint_for
from cycles._core.messages.outcome import Ambiguous, NoSuccess, RejectedResponse, Unreachable
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.protocol import CREATE_RESERVATION, DENY, ERROR_CODES, ERROR_OF_STATUS, SPENDING, error_code
from cycles._core.results import EvidenceRef, ReservationCreateResponse
from cycles._core.values.deny_detail import DenyDetail, read_deny_detail


def error_of(outcome: NoSuccess, operation: str, request: ReserveRequest | None = None) -> errors.CyclesError:
    """Return the exception of an outcome that is no success: by its code if that is known, else by its status.

    A denial also says what `request` would have reserved.

    Any 409 in response to a create is a denial (`docs/protocol/decisions-and-caps.md#conflicts-on-create`).
    """
    error = _error_of(outcome, operation, request)
    error.http = getattr(outcome, "http", None)
    return error


def _error_of(outcome: NoSuccess, operation: str, request: ReserveRequest | None) -> errors.CyclesError:
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
        # A caller that catches denials of a create must get each of them, also one with a code of a newer server.
        is_mismatch = kind is errors.IdempotencyMismatchError
        kind = errors.ReservationKeyReusedError if is_mismatch else errors.ReservationDeniedError
    hint = hint_for(kind, response, spending=operation in SPENDING)
    # What was requested is known only here; the response of a server has its own view of it.
    if request is not None and issubclass(kind, errors.ReservationDeniedError):
        is_of_budget = issubclass(kind, errors.BudgetExceededError)
        if is_of_budget and not request.reports_denial:
            hint = None  # the caller says what would let it pass
        elif is_of_budget and str(request.estimate) in response.message:
            hint = FUND_HINT
        else:
            hint = _joined(denial_message(request, response.details), hint)
    hint = _with_fix(hint, response.details)
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
        deny_detail=_deny_detail(response.details),
    )


def _joined(first: str, hint: str | None) -> str:
    return first if hint is None else f"{first}; {hint}"


def _deny_detail(details: Mapping[str, Any] | None) -> DenyDetail | None:
    return read_deny_detail((details or {}).get("deny_detail"))


def _with_fix(hint: str | None, details: Mapping[str, Any] | None) -> str | None:
    """Return the hint with the server's own advice, if its deny detail has one."""
    detail = _deny_detail(details)
    fix = None if detail is None or not detail.suggested_fix else f"the server suggests: {detail.suggested_fix:.200}"
    return hint if fix is None else fix if hint is None else _joined(hint, fix)


def _kind(response: RejectedResponse) -> type[errors.ProtocolError]:
    # A failing server says nothing about the request, so its code does not count.
    if response.server_failed:
        return errors.ServerError
    if response.status == 429:
        return errors.RateLimitedError
    # Without a code, a proxy or a web framework has responded: only the status is left. A page is no expiry.
    if response.code is None and response.status in ERROR_OF_STATUS and (response.status != 410 or response.expired):
        return ERROR_OF_STATUS[response.status]
    return error_code(response.code, response.status).error


def _evidence(response: RejectedResponse) -> Any:
    # Evidence of another form is left out: it must not replace the error that is raised.
    body = response.evidence
    if body is None or not all(isinstance(body.get(name), str) for name in ("evidence_id", "cycles_evidence_url")):
        return None
    return EvidenceRef.read(body)


def denial(created: ReservationCreateResponse, *, context: str | None = None) -> errors.ReservationDeniedError:
    """Return the exception for a create response of status 200 whose decision is not ALLOW or ALLOW_WITH_CAPS.

    See `docs/protocol/decisions-and-caps.md#unknown-decisions`.
    """
    decision, reason_code = created.decision, created.denial_code
    kind = ERROR_CODES[reason_code].error if reason_code in ERROR_CODES else errors.ReservationDeniedError
    # A caller that catches denials must get each of them, also one with a code that belongs to another error.
    if not issubclass(kind, errors.ReservationDeniedError):
        kind = errors.ReservationDeniedError
    if decision == DENY:
        message = f"the reservation was denied: {reason_code or 'no reason given'}"
    else:
        message = f"the server decided {decision!r:.80}, which this release does not know: it counts as a denial"
    hint = context if context is None else _joined(context, HINT_OF.get(kind))
    error = kind(message, hint=_with_fix(hint, _details(created)), status=200, code=reason_code, **_members(created))
    error.http = created.http
    return error


def observed_error(created: ReservationCreateResponse) -> errors.ObservedReservationError:
    """Return the exception for a live reservation that the server only observed.

    See `docs/protocol/decisions-and-caps.md#observe-mode`.
    """
    reason = f" ({created.denial_code})" if created.denial_code else ""
    error = errors.ObservedReservationError(
        f"the server decided {created.decision}{reason} and holds nothing: this looks like a tenant in observe mode",
        status=200,
        hint='pass on_observed="run" to cycles.Cycles(...) or reserve(...) to run the block with any decision, '
        "or have an operator enforce the budgets",
        **_members(created),
    )
    # Unlike a denial, what was only observed may have been allowed.
    error.decision, error.http = created.decision, created.http
    return error


def _members(created: ReservationCreateResponse) -> dict[str, Any]:
    return {
        "reason_code": created.denial_code,
        "request_id": created.request_id,
        "trace_id": created.trace_id,
        "details": _details(created),
        "deny_detail": created.deny_detail,
        "retry_after_ms": created.retry_after_ms,
        "evidence": created.cycles_evidence,
    }


def _details(created: ReservationCreateResponse) -> dict[str, Any]:
    detail = created.deny_detail
    return {} if detail is None else {"deny_detail": detail.to_dict()}
