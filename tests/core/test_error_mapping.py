"""Which exception an error response becomes, and that the server's message stays unchanged."""

from __future__ import annotations

from typing import Any

import pytest

import cycles
from cycles._core.messages.errors import error_of
from cycles._core.messages.outcome import Ambiguous, RejectedResponse, Unreachable
from cycles._core.values.result_base import HttpResponse


@pytest.mark.parametrize(
    ("operation", "status", "code", "kind"),
    [
        ("createReservation", 409, "BUDGET_EXCEEDED", cycles.BudgetExceededError),
        ("createReservation", 409, "BRAND_NEW", cycles.ReservationDeniedError),
        ("createReservation", 409, None, cycles.ReservationDeniedError),
        ("createReservation", 409, "NOT_FOUND", cycles.ReservationDeniedError),
        ("createReservation", 409, "IDEMPOTENCY_MISMATCH", cycles.ReservationKeyReusedError),
        ("commitReservation", 409, "IDEMPOTENCY_MISMATCH", cycles.IdempotencyMismatchError),
        ("commitReservation", 409, "BRAND_NEW", cycles.ProtocolError),
        ("createReservation", 418, "BRAND_NEW", cycles.ProtocolError),
        ("createReservation", 400, "INVALID_REQUEST", cycles.ProtocolError),
        ("createReservation", 401, None, cycles.UnauthorizedError),
        ("getReservation", 410, None, cycles.ReservationExpiredError),
        ("createReservation", 429, None, cycles.RateLimitedError),
        ("createReservation", 429, "BRAND_NEW", cycles.RateLimitedError),
        ("commitReservation", 429, "BUDGET_EXCEEDED", cycles.RateLimitedError),
        ("createReservation", 529, None, cycles.ServerError),
    ],
)
def test_the_code_decides_if_it_is_known_else_the_status(
    operation: str, status: int, code: str | None, kind: type[cycles.ProtocolError]
) -> None:
    error = error_of(RejectedResponse(status, code, "words"), operation)
    assert type(error) is kind
    assert error.code == code


def test_a_key_that_was_used_before_denies_the_reservation_and_is_a_mismatch() -> None:
    error = error_of(RejectedResponse(409, "IDEMPOTENCY_MISMATCH", "words"), "createReservation")
    assert isinstance(error, cycles.IdempotencyMismatchError)
    assert isinstance(error, cycles.ReservationDeniedError)


def test_the_hint_is_separate_from_the_message_of_the_server() -> None:
    error = error_of(RejectedResponse(401, "UNAUTHORIZED", "KEY_NOT_FOUND", "req-1"), "decide")
    assert isinstance(error, cycles.UnauthorizedError)
    assert error.message == "KEY_NOT_FOUND"
    assert error.hint is not None
    assert error.hint in str(error)
    assert "req-1" in str(error)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ({"evidence_id": "ev_1", "cycles_evidence_url": "https://x/ev_1"}, "ev_1"),
        ({"evidence_id": "ev_1"}, None),
        ({"evidence_id": 7, "cycles_evidence_url": "https://x"}, None),
        (None, None),
    ],
)
def test_an_error_has_the_evidence_of_its_response_if_that_is_complete(evidence: Any, expected: str | None) -> None:
    error = error_of(RejectedResponse(409, "BUDGET_EXCEEDED", "m", evidence=evidence), "createReservation")
    assert isinstance(error, cycles.ProtocolError)
    assert (None if error.evidence is None else error.evidence.evidence_id) == expected


@pytest.mark.parametrize("operation", ["createReservation", "commitReservation"])
def test_an_error_has_the_ids_and_the_response_of_its_attempt(operation: str) -> None:
    http = HttpResponse(409, (), 0.1)
    rejected = error_of(RejectedResponse(409, "BUDGET_EXCEEDED", "words", "req-1", "trace-1", http=http), operation)
    assert isinstance(rejected, cycles.ProtocolError)
    assert (rejected.status, rejected.request_id, rejected.trace_id) == (409, "req-1", "trace-1")
    ambiguous = error_of(Ambiguous(200, "words", "req-1", "trace-1", http=http), operation)
    assert isinstance(ambiguous, cycles.AmbiguousResponseError)
    assert (ambiguous.status, ambiguous.request_id, ambiguous.trace_id) == (200, "req-1", "trace-1")
    assert (rejected.http, ambiguous.http) == (http, http)
    cause = OSError("down")
    lost = error_of(Unreachable("words", cause, sent=False, trace_id="trace-1"), operation)
    assert isinstance(lost, cycles.TransportError)
    assert (lost.trace_id, lost.cause, lost.request_sent) == ("trace-1", cause, False)
