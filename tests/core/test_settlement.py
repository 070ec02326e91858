"""What each response means for a settlement. See `docs/protocol/settlement.md#what-ends-a-record`."""

from __future__ import annotations

import pytest
from attrs import evolve

from cycles._core.amounts import Amount, tokens
from cycles._core.outcome import Ambiguous, Outcome, RejectedResponse, Success, Unreachable
from cycles._core.records import Record
from cycles._core.settlement import Expired, Rejected, Settled, Unresolved, classify_settlement

ACTUAL = tokens(7)
COMMIT = Record(
    reservation_id="r1",
    base_url="http://localhost",
    commit_body={"idempotency_key": "k", "actual": ACTUAL.to_dict()},
    event_fallback_body={"idempotency_key": "k", "actual": ACTUAL.to_dict()},
)
EVENT = evolve(COMMIT, mode="event")


def refusal(
    status: int, code: str | None, *, conformant: bool = True, retry_after_ms: int | None = None
) -> RejectedResponse:
    return RejectedResponse(status, code, "words", retry_after_ms=retry_after_ms, conformant=conformant)


def success(**body: object) -> Success:
    return Success(body, "req", "trace", 0.0, 1.0, b"")


COMMITTED = success(status="COMMITTED", charged={"unit": "TOKENS", "amount": 5})
APPLIED = success(status="APPLIED", event_id="e1")


@pytest.mark.parametrize(
    ("record", "outcome", "meaning"),
    [
        (COMMIT, COMMITTED, Settled),
        (EVENT, APPLIED, Settled),
        (COMMIT, refusal(410, "RESERVATION_EXPIRED"), Expired),
        (COMMIT, refusal(410, None, conformant=False), Expired),
        (COMMIT, refusal(400, "RESERVATION_EXPIRED"), Expired),
        (COMMIT, refusal(500, "RESERVATION_EXPIRED"), Unresolved),
        (COMMIT, refusal(409, "BUDGET_EXCEEDED"), Rejected),
        (COMMIT, refusal(409, "RESERVATION_FINALIZED"), Rejected),
        (COMMIT, refusal(404, "NOT_FOUND"), Rejected),
        (COMMIT, refusal(400, "UNIT_MISMATCH"), Rejected),
        (EVENT, refusal(409, "BUDGET_FROZEN"), Rejected),
        (COMMIT, refusal(409, "BUDGET_EXCEEDED", conformant=False), Unresolved),
        (COMMIT, refusal(400, "BUDGET_EXCEEDED"), Unresolved),
        (COMMIT, refusal(409, "SOMETHING_NEW"), Unresolved),
        (COMMIT, refusal(404, None, conformant=False), Unresolved),
        (COMMIT, refusal(401, "UNAUTHORIZED"), Unresolved),
        (COMMIT, refusal(403, "FORBIDDEN"), Unresolved),
        (COMMIT, refusal(429, "LIMIT_EXCEEDED"), Unresolved),
        (COMMIT, refusal(500, "INTERNAL_ERROR"), Unresolved),
        (COMMIT, refusal(503, None, conformant=False), Unresolved),
        (COMMIT, Ambiguous(200, "html"), Unresolved),
        (COMMIT, Unreachable("refused"), Unresolved),
        (evolve(COMMIT, event_fallback_body=None), refusal(410, "RESERVATION_EXPIRED"), Unresolved),
    ],
)
def test_the_meaning_of_each_answer(record: Record, outcome: Outcome, meaning: type) -> None:
    assert isinstance(classify_settlement(record, outcome), meaning)


def test_a_settlement_says_what_was_charged_and_whether_that_was_all() -> None:
    committed = classify_settlement(COMMIT, COMMITTED)
    assert isinstance(committed, Settled)
    assert committed.settlement.status == "committed"
    assert committed.settlement.charged == Amount("TOKENS", 5)
    assert committed.settlement.undercharged
    recorded = classify_settlement(EVENT, APPLIED)
    assert isinstance(recorded, Settled)
    assert recorded.settlement.status == "recorded_as_event"
    assert recorded.settlement.charged == ACTUAL  # an event says what it charged only where that is less
    assert not recorded.settlement.undercharged
    assert recorded.settlement.event_id == "e1"


def test_a_429_carries_its_floor_into_the_record() -> None:
    owed = classify_settlement(COMMIT, refusal(429, "LIMIT_EXCEEDED", retry_after_ms=3000))
    assert isinstance(owed, Unresolved)
    assert owed.retry_after_ms == 3000
