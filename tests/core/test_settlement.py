"""What each response means for a settlement. See `docs/protocol/settlement.md#what-ends-a-record`."""

from __future__ import annotations

import pytest
from attrs import evolve

from cycles._core.amounts import INT64_MAX, Amount, tokens
from cycles._core.messages.outcome import Ambiguous, Outcome, RejectedResponse, Success, Unreachable
from cycles._core.settlement.late import guards_of, late, late_record, sum_of
from cycles._core.settlement.record import Record, decode, encode
from cycles._core.settlement.rules import (
    MAY_BE_CHARGED,
    Lookup,
    Resend,
    after_lookup,
    before_sending,
    classify_settlement,
    rejected_excess,
)
from cycles._core.settlement.settlement import Rejected, Settled, Unresolved, event_body

ACTUAL = tokens(7)
HOUR = 3_600_000
DAY = 24 * HOUR
NOW = 1_800_000_000_000
COMMIT = Record(
    reservation_id="r1",
    base_url="http://localhost",
    commit_body={"idempotency_key": "k", "actual": ACTUAL.to_dict()},
    event_fallback_body={"idempotency_key": "k", "actual": ACTUAL.to_dict()},
    recorded_at_ms=NOW - HOUR,
)
EVENT = evolve(COMMIT, mode="event")
UNKNOWN = evolve(COMMIT, attempt_unknown=True)


@pytest.mark.parametrize(
    ("excess", "whole"),
    [
        (None, 7), ({}, 7), ({"amount": 0}, 7), ({"amount": -1}, 7), ({"amount": True}, 7), ({"amount": "1"}, 7),
        ({"amount": 1}, 8), ({"amount": 5}, 12), ({"amount": INT64_MAX - 7}, INT64_MAX), ({"amount": INT64_MAX - 6}, 7),
    ],
)  # fmt: skip
def test_the_whole_amount_of_a_record_counts_a_valid_excess(excess: dict[str, object] | None, whole: int) -> None:
    assert evolve(COMMIT, excess=excess).whole == tokens(whole)


def refusal(
    status: int, code: str | None, *, conformant: bool = True, retry_after_ms: int | None = None, is_page: bool = False
) -> RejectedResponse:
    return RejectedResponse(
        status, code, "words", retry_after_ms=retry_after_ms, conformant=conformant, is_page=is_page
    )


def success(**body: object) -> Success:
    return Success(body, "req", "trace", 0.0, 1.0, b"")


COMMITTED = success(status="COMMITTED", charged={"unit": "TOKENS", "amount": 5})
APPLIED = success(status="APPLIED", event_id="e1")


@pytest.mark.parametrize(
    ("record", "outcome", "meaning"),
    [
        (COMMIT, COMMITTED, Settled),
        (EVENT, APPLIED, Settled),
        (COMMIT, refusal(410, "RESERVATION_EXPIRED"), Resend),
        (COMMIT, refusal(410, None, conformant=False, is_page=True), Unresolved),
        (COMMIT, refusal(410, None, conformant=False), Resend),
        (COMMIT, refusal(410, "GONE"), Resend),
        (UNKNOWN, refusal(410, None, conformant=False), Unresolved),
        (UNKNOWN, refusal(410, "RESERVATION_EXPIRED"), Resend),
        (COMMIT, refusal(400, "RESERVATION_EXPIRED"), Resend),
        (COMMIT, refusal(500, "RESERVATION_EXPIRED"), Unresolved),
        (COMMIT, refusal(429, "RESERVATION_EXPIRED"), Unresolved),
        (COMMIT, refusal(409, "BUDGET_EXCEEDED"), Rejected),
        (COMMIT, refusal(409, "RESERVATION_FINALIZED"), Rejected),
        (COMMIT, refusal(404, "NOT_FOUND"), Resend),
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
def test_the_outcome_of_each_response(record: Record, outcome: Outcome, meaning: type) -> None:
    assert isinstance(classify_settlement(record, outcome, NOW), meaning)


def test_a_settlement_says_what_was_charged_and_whether_that_was_all() -> None:
    committed = classify_settlement(COMMIT, COMMITTED, NOW)
    assert isinstance(committed, Settled)
    assert committed.settlement.status == "committed"
    assert committed.settlement.charged == Amount("TOKENS", 5)
    assert committed.settlement.undercharged
    recorded = classify_settlement(EVENT, APPLIED, NOW)
    assert isinstance(recorded, Settled)
    assert recorded.settlement.status == "recorded_as_event"
    assert recorded.settlement.charged == ACTUAL  # an event says what it charged only where that is less
    assert not recorded.settlement.undercharged
    assert recorded.settlement.event_id == "e1"


def test_a_429_has_the_delay_that_the_server_requested() -> None:
    owed = classify_settlement(COMMIT, refusal(429, "LIMIT_EXCEEDED", retry_after_ms=3000), NOW)
    assert isinstance(owed, Unresolved)
    assert owed.retry_after_ms == 3000


@pytest.mark.parametrize("status", [401, 403, 500, 502, 503])
def test_only_a_429_has_such_a_delay_because_a_proxy_may_demand_hours(status: int) -> None:
    owed = classify_settlement(COMMIT, refusal(status, None, conformant=False, retry_after_ms=3_600_000), NOW)
    assert isinstance(owed, Unresolved)
    assert owed.retry_after_ms is None


def resent(record: Record, outcome: Outcome) -> Record:
    step = classify_settlement(record, outcome, NOW)
    assert isinstance(step, Resend)
    return step.record


def with_body(record: Record, **members: object) -> Record:
    return record.with_body({**record.body, **members})


# A server that has lost the reservation


def test_a_lost_reservation_is_recorded_as_an_event_with_the_key_of_the_commit() -> None:
    record = resent(COMMIT, refusal(404, "NOT_FOUND"))
    assert record.mode == "event"
    assert record.body["idempotency_key"] == "k"
    assert record.body["metadata"]["recovery_reason"] == "reservation_not_found"
    assert record.event_since_ms == NOW


@pytest.mark.parametrize(
    "record",
    [UNKNOWN, evolve(COMMIT, recorded_at_ms=NOW - DAY), evolve(COMMIT, event_fallback_body=None)],
    ids=["an attempt of unknown outcome", "a day old", "no event body"],
)
def test_a_lost_reservation_that_may_be_charged_is_kept(record: Record) -> None:
    step = classify_settlement(record, refusal(404, "NOT_FOUND"), NOW)
    assert isinstance(step, Rejected)
    assert step.reason == MAY_BE_CHARGED


# Budgets that are too small


def test_an_event_that_the_budget_rejects_is_sent_once_more_for_what_is_left() -> None:
    overdraft = with_body(EVENT, overage_policy="ALLOW_WITH_OVERDRAFT")
    record = resent(overdraft, refusal(409, "OVERDRAFT_LIMIT_EXCEEDED"))
    assert record.body == {**overdraft.body, "overage_policy": "ALLOW_IF_AVAILABLE"}
    step = classify_settlement(record, refusal(409, "BUDGET_EXCEEDED"), NOW)
    assert isinstance(step, Rejected)
    assert step.reason == "BUDGET_EXCEEDED"


@pytest.mark.parametrize("code", ["BUDGET_EXCEEDED", "OVERDRAFT_LIMIT_EXCEEDED"])
def test_a_rejected_excess_commits_the_estimate_and_keeps_the_difference(code: str) -> None:
    above = evolve(COMMIT, estimate=5)
    record = resent(above, refusal(409, code))
    assert record.body["idempotency_key"] == "k:reserved"
    assert record.body["actual"] == {"unit": "TOKENS", "amount": 5}
    assert record.body["metadata"] == {"actual_amount": 7}
    step = classify_settlement(record, COMMITTED, NOW)
    assert isinstance(step, Rejected)
    assert (step.response.status, step.response.code, step.reason) == (409, code, code)
    assert step.charged is not None
    assert step.charged.charged == Amount("TOKENS", 5)
    assert step.kept is not None
    assert step.kept.body["actual"] == {"unit": "TOKENS", "amount": 2}
    assert step.kept.body["idempotency_key"] == "k:excess"
    assert step.kept.reservation_id != record.reservation_id
    assert step.kept.recorded_at_ms == COMMIT.recorded_at_ms
    over = before_sending(step.kept, NOW)
    assert isinstance(over, Rejected)  # never sent automatically


@pytest.mark.parametrize("metadata", [None, {"task": "t"}])
@pytest.mark.parametrize("response", [(410, "RESERVATION_EXPIRED"), (404, "NOT_FOUND")])
@pytest.mark.parametrize("estimate", [5, 6])
def test_the_event_of_a_record_is_the_same_whether_its_excess_was_rejected_before_or_not(
    metadata: dict[str, str] | None, response: tuple[int, str], estimate: int
) -> None:
    """Two processes may settle one record: events under two keys would both be charged."""
    above = evolve(COMMIT, estimate=estimate)
    if metadata is not None:
        above = evolve(with_body(above, metadata=metadata), event_fallback_body={**EVENT.body, "metadata": metadata})
    reduced = decode(encode(resent(above, refusal(409, "BUDGET_EXCEEDED"))))
    event = resent(reduced, refusal(*response))
    assert (event.mode, event.excess) == ("event", None)
    assert event.body == resent(above, refusal(*response)).body
    assert event.actual == ACTUAL


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("reservation_id", ["r1", None])
def test_the_event_of_a_request_in_flight_is_marked_as_an_upper_bound(reservation_id: str | None, sent: bool) -> None:
    commit = {"idempotency_key": "k", "actual": {"unit": "TOKENS", "amount": 5}, "metadata": {"task": "t"}}
    create = {"subject": {"tenant": "acme"}, "action": {"kind": "a", "name": "b"}}
    metadata = event_body(commit, create, reservation_id, sent=sent)["metadata"]
    reason = "process_ended" if sent else None if reservation_id is None else "commit_after_reservation_expired"
    assert metadata.pop("recovery_reason", None) == reason
    assert metadata.pop("recovered_reservation_id", None) == reservation_id
    assert metadata == {"task": "t"}


# Bodies with optional parts


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("start", [COMMIT, EVENT], ids=["commit", "event"])
def test_a_body_that_is_invalid_or_too_large_is_sent_once_without_its_optional_parts(
    start: Record, status: int
) -> None:
    full = with_body(start, metadata={"label": "x" * 99}, metrics={"tokens_input": 1})
    step = classify_settlement(full, refusal(status, None, conformant=False), NOW)
    assert isinstance(step, Resend)
    assert step.omitted == ("metrics", "metadata")
    assert step.record.body == start.body
    assert isinstance(classify_settlement(step.record, refusal(status, None, conformant=False), NOW), Unresolved)


def test_another_final_code_leads_to_no_smaller_body() -> None:
    full = with_body(COMMIT, metadata={"label": "x"})
    assert isinstance(classify_settlement(full, refusal(400, "UNIT_MISMATCH"), NOW), Rejected)


# Records that may have been sent before


@pytest.mark.parametrize("code", ["IDEMPOTENCY_MISMATCH", "RESERVATION_FINALIZED"])
@pytest.mark.parametrize(("record", "found"), [(UNKNOWN, False), (COMMIT, True)])
def test_a_commit_that_may_have_been_received_before_is_looked_up(record: Record, found: bool, code: str) -> None:
    assert isinstance(classify_settlement(record, refusal(409, code), NOW, found=found), Lookup)


DETAIL = {
    "reservation_id": "r1",
    "status": "COMMITTED",
    "subject": {"tenant": "acme"},
    "action": {"kind": "k", "name": "n"},
    "reserved": {"unit": "TOKENS", "amount": 9},
    "committed": {"unit": "TOKENS", "amount": 7},
    "created_at_ms": 1,
    "expires_at_ms": 2,
    "scope_path": "tenant:acme",
    "affected_scopes": ["tenant:acme"],
}


@pytest.mark.parametrize(
    ("policy", "change", "meaning"),
    [
        (None, {}, Settled),
        (None, {"committed": {"unit": "TOKENS", "amount": 6}}, Rejected),
        ("ALLOW_IF_AVAILABLE", {"committed": {"unit": "TOKENS", "amount": 6}}, Settled),
        ("ALLOW_IF_AVAILABLE", {"committed": {"unit": "TOKENS", "amount": 8}}, Rejected),
        ("ALLOW_WITH_OVERDRAFT", {"committed": {"unit": "TOKENS", "amount": 6}}, Settled),  # without an overdraft limit
        (None, {"committed": {"unit": "CREDITS", "amount": 7}}, Rejected),
        (None, {"status": "RELEASED", "committed": None}, Rejected),
    ],
)
def test_the_state_of_the_reservation_decides(policy: str | None, change: dict[str, object], meaning: type) -> None:
    event = {**(COMMIT.event_fallback_body or {}), **({"overage_policy": policy} if policy else {})}
    record = evolve(COMMIT, event_fallback_body=event)
    result = after_lookup(record, refusal(409, "RESERVATION_FINALIZED"), success(**{**DETAIL, **change}))
    assert isinstance(result, meaning)
    assert getattr(result, "reason", "RESERVATION_FINALIZED") == "RESERVATION_FINALIZED"


ABOVE = evolve(COMMIT, estimate=5)  # its actual is 7


def test_an_estimate_that_another_process_charged_leaves_the_excess_only() -> None:
    found = success(**{**DETAIL, "committed": {"unit": "TOKENS", "amount": 5}})
    result = after_lookup(ABOVE, refusal(409, "RESERVATION_FINALIZED"), found)
    assert isinstance(result, Rejected)
    assert result.reason == "BUDGET_EXCEEDED"
    assert result.kept is not None
    assert (result.kept.reservation_id, result.kept.actual) == ("r1:excess", tokens(2))
    assert result.charged is not None
    assert result.charged.charged == tokens(5)


def test_a_first_commit_asks_whether_another_process_has_committed_the_estimate() -> None:
    """A forked child may find the record of a caller that is still sending it, and commit the estimate."""
    step = classify_settlement(ABOVE, refusal(409, "RESERVATION_FINALIZED"), NOW)
    assert isinstance(step, Lookup)
    assert not step.sent_before
    for record, code in ((COMMIT, "RESERVATION_FINALIZED"), (ABOVE, "IDEMPOTENCY_MISMATCH")):
        assert isinstance(classify_settlement(record, refusal(409, code), NOW), Rejected)
    for amount, left in ((5, "r1:excess"), (7, None), (4, None)):
        found = success(**{**DETAIL, "committed": {"unit": "TOKENS", "amount": amount}})
        result = after_lookup(ABOVE, step.response, found, sent_before=False)
        assert isinstance(result, Rejected)
        assert (None if result.kept is None else result.kept.reservation_id) == left


def test_an_estimate_that_was_charged_because_no_more_was_left_is_settled() -> None:
    event = {**(COMMIT.event_fallback_body or {}), "overage_policy": "ALLOW_IF_AVAILABLE"}
    found = success(**{**DETAIL, "committed": {"unit": "TOKENS", "amount": 5}})
    result = after_lookup(evolve(ABOVE, event_fallback_body=event), refusal(409, "RESERVATION_FINALIZED"), found)
    assert isinstance(result, Settled)
    assert result.settlement.undercharged


def test_a_lookup_that_confirms_the_estimate_keeps_the_excess() -> None:
    step = classify_settlement(ABOVE, refusal(409, "BUDGET_EXCEEDED"), NOW)
    assert isinstance(step, Resend)
    found = success(**{**DETAIL, "committed": {"unit": "TOKENS", "amount": 5}})
    result = after_lookup(step.record, refusal(409, "IDEMPOTENCY_MISMATCH"), found)
    assert isinstance(result, Rejected)
    assert result.kept is not None
    assert result.kept.actual == tokens(2)
    other = success(**{**DETAIL, "committed": {"unit": "TOKENS", "amount": 6}})
    result = after_lookup(step.record, refusal(409, "IDEMPOTENCY_MISMATCH"), other)
    assert isinstance(result, Rejected)
    assert result.kept is None, "another owner of the reservation has committed it: all of the amount is kept"


def test_an_earlier_state_of_spend_is_settled_if_more_was_committed_under_its_key() -> None:
    found = success(**{**DETAIL, "committed": {"unit": "TOKENS", "amount": 16}})
    result = after_lookup(COMMIT, refusal(409, "IDEMPOTENCY_MISMATCH"), found)
    assert isinstance(result, Settled)
    assert result.settlement.charged == tokens(16)
    another_key = after_lookup(COMMIT, refusal(409, "RESERVATION_FINALIZED"), found)
    assert isinstance(another_key, Rejected), "another owner of the reservation has committed it"


def test_a_lookup_that_fails_leaves_the_settlement_pending() -> None:
    result = after_lookup(COMMIT, refusal(409, "RESERVATION_FINALIZED"), Unreachable("refused"))
    assert isinstance(result, Unresolved)


def test_a_changed_event_is_sent_in_its_earlier_form_before_it_is_kept() -> None:
    unknown = evolve(EVENT, attempt_unknown=True)
    changed = resent(unknown, refusal(409, "BUDGET_EXCEEDED"))
    assert changed.previous_body == unknown.body
    other = resent(changed, refusal(409, "IDEMPOTENCY_MISMATCH"))
    assert other.body == unknown.body
    step = classify_settlement(other, refusal(409, "IDEMPOTENCY_MISMATCH"), NOW)
    assert isinstance(step, Rejected)
    assert step.reason == MAY_BE_CHARGED


def test_a_changed_body_may_have_been_received_whatever_the_response_was() -> None:
    """A proxy may reject the response of a request that the server has run."""
    labelled = COMMIT.with_body({**COMMIT.body, "metadata": {"task": "t"}})
    changed = resent(labelled, refusal(413, None, conformant=False))
    assert changed.previous_body == labelled.body
    assert isinstance(classify_settlement(changed, refusal(409, "IDEMPOTENCY_MISMATCH"), NOW), Lookup)


@pytest.mark.parametrize("unknown", [True, False])
def test_the_two_forms_of_an_event_do_not_alternate_for_ever(unknown: bool) -> None:
    labelled = evolve(EVENT.with_body({**EVENT.body, "metadata": {"task": "t"}}), attempt_unknown=unknown)
    record, bodies = labelled, [labelled.body]
    for _ in range(10):
        response = (413, None) if "metadata" in record.body else (409, "IDEMPOTENCY_MISMATCH")
        step = classify_settlement(record, refusal(*response, conformant=response[1] is not None), NOW)
        if not isinstance(step, Resend):
            break
        record = decode(encode(step.record))
        bodies.append(record.body)
    assert isinstance(step, Rejected)
    assert step.reason == MAY_BE_CHARGED
    assert len(bodies) == 4


def mismatches(record: Record) -> tuple[list[dict[str, object]], object]:
    """Return the bodies that are sent while the server reports the key as used by another one, and the last step."""
    bodies: list[dict[str, object]] = []
    for _ in range(10):
        bodies.append(record.body)
        step = classify_settlement(record, refusal(409, "IDEMPOTENCY_MISMATCH"), NOW, found=True)
        if not isinstance(step, Resend):
            return bodies, step
        record = decode(encode(step.record))
    return bodies, None


def test_an_event_is_sent_in_each_form_that_another_process_may_have_sent_before_it_is_kept() -> None:
    """Another process has found the record, and a proxy or a small budget has made it change the body: seed 1008781."""
    labelled = EVENT.with_body({**EVENT.body, "metadata": {"task": "t"}, "metrics": {"tokens_input": 1}})
    bodies, step = mismatches(labelled)
    affordable = {**labelled.body, "overage_policy": "ALLOW_IF_AVAILABLE"}
    assert bodies == [labelled.body, EVENT.body, affordable]
    assert isinstance(step, Rejected)
    assert step.reason == MAY_BE_CHARGED


def test_an_event_that_another_process_has_sent_without_its_labels_is_settled_by_the_replay() -> None:
    labelled = EVENT.with_body({**EVENT.body, "metadata": {"task": "t"}})
    step = classify_settlement(labelled, refusal(409, "IDEMPOTENCY_MISMATCH"), NOW, found=True)
    assert isinstance(step, Resend)
    assert isinstance(classify_settlement(step.record, APPLIED, NOW, found=True), Settled)


def test_an_upper_bound_whose_cost_its_process_has_recorded_is_sent_in_no_other_form() -> None:
    bodies, step = mismatches(evolve(EVENT, sent=True))
    assert len(bodies) == 1
    assert isinstance(step, Settled)


# Old records


@pytest.mark.parametrize(
    ("record", "is_over"),
    [
        (evolve(EVENT, recorded_at_ms=NOW - 6 * DAY), False),
        (evolve(EVENT, recorded_at_ms=NOW - 6 * DAY - 1), True),
        (evolve(EVENT, recorded_at_ms=NOW - 20 * DAY, event_since_ms=NOW - DAY), False),
        (evolve(EVENT, recorded_at_ms=NOW - 7 * DAY, event_since_ms=NOW - 7 * DAY), True),
        (evolve(COMMIT, recorded_at_ms=NOW - 29 * DAY), False),
        (evolve(COMMIT, recorded_at_ms=NOW - 30 * DAY), True),
        (evolve(COMMIT, recorded_at_ms=0), False),
    ],
)
def test_a_record_that_outlived_its_key_is_not_sent(record: Record, is_over: bool) -> None:
    over = before_sending(record, NOW)
    assert getattr(over, "reason", None) == (MAY_BE_CHARGED if is_over else None)


def test_the_added_members_survive_a_restart() -> None:
    record = evolve(
        EVENT,
        attempt_unknown=True,
        event_since_ms=NOW,
        estimate=5,
        excess={"amount": 2, "code": "BUDGET_EXCEEDED"},
        previous_body={"idempotency_key": "k"},
        rejected="BUDGET_EXCEEDED",
    )
    assert decode(encode(record)) == record
    assert b"attempt_unknown" not in encode(EVENT)


@pytest.mark.parametrize(("committed", "rest"), [(0, 7), (6, 1), (7, None), (8, None)])
def test_the_rest_of_a_chunk_is_what_is_above_the_committed_sum(committed: int, rest: int | None) -> None:
    own = {"metadata": {"pool_chunk": 1, "pool_calls": 2}}
    commit, event = {**(COMMIT.commit_body or {}), **own}, {**(COMMIT.event_fallback_body or {}), **own, "subject": "s"}
    record = evolve(COMMIT, commit_body=commit, event_fallback_body=event)
    assert (guards_of(record), guards_of(COMMIT), sum_of(record)) == (2, None, 7)
    late_event = late(record, committed, NOW)
    assert (late_event is None) == (rest is None)
    if late_event is not None:
        assert (late_event.mode, late_event.actual, late_event.body["subject"]) == ("event", tokens(rest or 0), "s")
        assert (late_event.body["idempotency_key"], sum_of(late_event)) == (f"k:late:{committed}", 7)
        assert late(late_event, 7, NOW) is None


def test_the_event_for_the_rest_of_a_chunk_has_no_metrics_of_the_whole_chunk() -> None:
    """The commit of the other client has them already."""
    chunk = {"idempotency_key": "k", "actual": {"unit": "TOKENS", "amount": 12}, "metrics": {"tokens_input": 40}}
    rest = late_record(evolve(COMMIT, commit_body=chunk, event_fallback_body=chunk), 7, NOW)
    assert rest is not None
    assert rest.body["actual"]["amount"] == 5
    assert "metrics" not in rest.body


def test_an_excess_that_another_writer_saved_in_another_form_is_still_rejected() -> None:
    record = evolve(COMMIT, excess={"amount": 1, "code": 5, "message": None, "request_id": [], "trace_id": {}})
    response = rejected_excess(record)
    assert response is not None
    assert (response.code, response.request_id, response.trace_id) == (None, None, None)
    assert rejected_excess(COMMIT) is None


def test_the_marks_of_an_event_replace_metadata_of_the_same_name() -> None:
    commit = {"idempotency_key": "k", "actual": {}, "metadata": {"recovered_reservation_id": "mine", "run": 1}}
    body = event_body(commit, {"subject": {}, "action": {}}, "r1")
    assert body["metadata"] == {
        "recovered_reservation_id": "r1",
        "recovery_reason": "commit_after_reservation_expired",
        "run": 1,
    }
