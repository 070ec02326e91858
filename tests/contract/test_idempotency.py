"""Idempotency keys: namespaces, lifetimes, replays, and payload comparison."""

from __future__ import annotations

from typing import Any

import pytest

from .kit import ABSENT, Api, Response, Target, fresh_key

A = "tenant:tenant-a"
DAY = 86_400_000
MISMATCH = (409, "IDEMPOTENCY_MISMATCH")


def stable(response: Response) -> tuple[int, dict[str, Any]]:
    return response.status, {name: value for name, value in response.body.items() if name != "remaining_ttl_ms"}


# --- replays ----------------------------------------------------------------------------------------------------------


def test_a_replay_is_the_first_response_with_its_numbers(target: Target) -> None:
    key, event_key, decide_key = fresh_key(), fresh_key(), fresh_key()
    first, event = target.api.reserve(idempotency_key=key), target.api.event(5, idempotency_key=event_key)
    decided = target.api.decide(idempotency_key=decide_key)
    before = target.numbers()
    assert stable(target.api.reserve(idempotency_key=key)) == stable(first)
    again = target.api.event(5, idempotency_key=event_key)
    assert (again.status, again.body) == (201, event.body)
    assert target.api.decide(idempotency_key=decide_key).body == decided.body
    assert target.numbers() == before


def test_a_replay_has_a_new_request_id(api: Api) -> None:
    key = fresh_key()
    first, again = api.reserve(idempotency_key=key), api.reserve(idempotency_key=key)
    assert first.headers["X-Request-Id"] != again.headers["X-Request-Id"]


def test_a_replay_computes_remaining_ttl_again(target: Target) -> None:
    key, extend_key = fresh_key(), fresh_key()
    first = target.api.reserve(idempotency_key=key)
    rid = first.body["reservation_id"]
    extended = target.api.extend(rid, 10_000, idempotency_key=extend_key)
    target.clock.advance(20_000)
    assert target.api.extend(rid, 50_000).body["remaining_ttl_ms"] == 100_000
    for again, was, left in (
        (target.api.reserve(idempotency_key=key), first, 40_000),
        (target.api.extend(rid, 10_000, idempotency_key=extend_key), extended, 50_000),
    ):
        assert again.body["remaining_ttl_ms"] == left  # from the expiry of that response; later extensions do not count
        assert stable(again) == stable(was)
    target.clock.advance(45_000)
    assert target.api.reserve(idempotency_key=key).body["remaining_ttl_ms"] == 0


@pytest.mark.parametrize("end", ["commit", "release"])
def test_remaining_ttl_of_a_replay_is_zero_after_the_end(target: Target, end: str) -> None:
    key, extend_key = fresh_key(), fresh_key()
    rid = target.api.reserve(idempotency_key=key).body["reservation_id"]
    extended = target.api.extend(rid, idempotency_key=extend_key)
    getattr(target.api, end)(rid)
    assert target.api.reserve(idempotency_key=key).body["remaining_ttl_ms"] == 0
    again = target.api.extend(rid, idempotency_key=extend_key)
    assert (again.body["remaining_ttl_ms"], again.body["status"]) == (0, "ACTIVE")
    assert stable(again) == stable(extended)


def test_a_dry_run_replay_has_no_remaining_ttl(target: Target) -> None:
    key = fresh_key()
    first = target.api.reserve(idempotency_key=key, dry_run=True)
    target.api.event(5)
    assert target.api.reserve(idempotency_key=key, dry_run=True).body == first.body


def test_replays_precede_checks_of_budgets_tenants_and_states(target: Target) -> None:
    keys = [fresh_key() for _ in range(4)]
    rid = target.api.reserve(idempotency_key=keys[0]).body["reservation_id"]
    target.api.event(1, idempotency_key=keys[1])
    target.api.decide(idempotency_key=keys[2])
    committed = target.api.commit(rid, 5, idempotency_key=keys[3])
    target.ledger.set_tenant("tenant-a", status="NONSENSE")
    target.ledger.delete_budget(A, unit="TOKENS")
    assert target.api.reserve(idempotency_key=keys[0]).status == 200
    assert target.api.event(1, idempotency_key=keys[1]).status == 201
    assert target.api.decide(idempotency_key=keys[2]).body["decision"] == "ALLOW"
    assert target.api.commit(rid, 5, idempotency_key=keys[3]).body == committed.body


def test_stored_denials_are_replayed_after_a_refill(target: Target) -> None:
    target.seed(allocated=10)
    dry, decided = fresh_key(), fresh_key()
    for _ in range(2):
        assert target.api.reserve(idempotency_key=dry, dry_run=True).body["decision"] == "DENY"
        assert target.api.decide(idempotency_key=decided).body["reason_code"] == "BUDGET_EXCEEDED"
        target.seed(allocated=1_000_000)


# --- failures store no response ---------------------------------------------------------------------------------------


def test_a_rejected_key_can_be_used_again_with_another_body(target: Target) -> None:
    key = fresh_key()
    assert target.api.reserve(99_999_999, idempotency_key=key).status == 409
    assert target.api.reserve(5, idempotency_key=key).status == 200
    rid = target.api.held(1000)
    assert target.api.commit(rid, 2000, idempotency_key=key).status == 409
    assert target.api.commit(rid, 500, idempotency_key=key).status == 200
    assert target.api.event(5, "CREDITS", idempotency_key=key).status == 400
    assert target.api.event(5, idempotency_key=key).status == 201
    assert target.api.decide(5, "CREDITS", idempotency_key=key).status == 400
    assert target.api.decide(5, idempotency_key=key).status == 200


# --- namespaces -------------------------------------------------------------------------------------------------------


def test_one_key_works_on_every_endpoint_and_on_two_reservations(target: Target) -> None:
    key = fresh_key()
    first = target.api.reserve(idempotency_key=key).body["reservation_id"]
    second = target.api.held()
    assert target.api.decide(idempotency_key=key).status == 200
    assert target.api.event(idempotency_key=key).status == 201
    for rid in (first, second):
        assert target.api.extend(rid, idempotency_key=key).status == 200
    assert target.api.commit(first, idempotency_key=key).status == 200
    assert target.api.release(second, idempotency_key=key).status == 200
    assert target.api.release(first, idempotency_key=key).outcome == (409, "RESERVATION_FINALIZED")


def test_two_tenants_can_use_the_same_key(target: Target) -> None:
    key = fresh_key()
    mine, theirs = target.api.reserve(idempotency_key=key), target.other.reserve(idempotency_key=key)
    assert (mine.status, theirs.status) == (200, 200)
    assert mine.body["reservation_id"] != theirs.body["reservation_id"]


def test_another_key_on_a_finalized_reservation_is_no_mismatch(api: Api) -> None:
    rid, key = api.held(), fresh_key()
    api.commit(rid, 5, idempotency_key=key)
    assert api.commit(rid, 5).outcome == (409, "RESERVATION_FINALIZED")
    assert api.commit(rid, 6, idempotency_key=key).outcome == MISMATCH
    other = api.held()
    api.release(other, idempotency_key=key, reason="a")
    assert api.release(other, idempotency_key=key, reason="b").outcome == MISMATCH
    assert api.release(other, reason="a").outcome == (409, "RESERVATION_FINALIZED")


# --- the same payload or another --------------------------------------------------------------------------------------

SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"dry_run": False}),
    ({}, {"grace_period_ms": 5000}),
    ({}, {"metadata": None}),
    ({"overage_policy": ABSENT}, {"overage_policy": None}),
    ({"ttl_ms": ABSENT}, {"ttl_ms": None}),
    ({"action": {"kind": "k", "name": "n"}}, {"action": {"name": "n", "tags": None, "kind": "k"}}),
    ({"estimate": {"unit": "TOKENS", "amount": 5}}, {"estimate": {"amount": 5, "unit": "TOKENS"}}),
    ({"subject": {"tenant": "tenant-a"}}, {"subject": {"workspace": None, "tenant": "tenant-a", "dimensions": None}}),
]
OTHER: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"ttl_ms": ABSENT}, {"ttl_ms": 60_000}),
    ({"overage_policy": ABSENT}, {"overage_policy": "ALLOW_IF_AVAILABLE"}),
    ({}, {"grace_period_ms": None}),
    ({}, {"dry_run": None}),
    ({}, {"metadata": {}}),
    ({"metadata": {"a": 1, "b": 2}}, {"metadata": {"b": 2, "a": 1}}),
    ({"metadata": {"a": 1}}, {"metadata": {"a": 1.0}}),
    (
        {"subject": {"tenant": "tenant-a", "dimensions": {"x": "1", "y": "2"}}},
        {"subject": {"tenant": "tenant-a", "dimensions": {"y": "2", "x": "1"}}},
    ),
    (
        {"action": {"kind": "k", "name": "n", "tags": ["a", "b"]}},
        {"action": {"kind": "k", "name": "n", "tags": ["b", "a"]}},
    ),
    ({"subject": {"tenant": "tenant-a", "agent": "Bot"}}, {"subject": {"tenant": "tenant-a", "agent": "bot"}}),
    ({"estimate": {"unit": "TOKENS", "amount": 5}}, {"estimate": {"unit": "TOKENS", "amount": 6}}),
]


@pytest.mark.parametrize(("first", "again"), SAME)
def test_equivalent_payloads_are_replayed(target: Target, first: dict[str, Any], again: dict[str, Any]) -> None:
    key = fresh_key()
    made = target.api.reserve(idempotency_key=key, **first)
    assert stable(target.api.reserve(idempotency_key=key, **again)) == stable(made)


@pytest.mark.parametrize(("first", "again"), OTHER)
def test_another_payload_is_a_mismatch(target: Target, first: dict[str, Any], again: dict[str, Any]) -> None:
    key = fresh_key()
    assert target.api.reserve(idempotency_key=key, **first).status == 200
    before = target.numbers()
    assert target.api.reserve(idempotency_key=key, **again).outcome == MISMATCH
    assert target.numbers() == before


def test_every_operation_detects_another_payload(target: Target) -> None:
    key, rid = fresh_key(), target.api.held()
    target.api.decide(1, idempotency_key=key)
    target.api.event(1, idempotency_key=key)
    target.api.extend(rid, 1, idempotency_key=key)
    assert target.api.decide(2, idempotency_key=key).outcome == MISMATCH
    assert target.api.event(2, idempotency_key=key).outcome == MISMATCH
    assert target.api.extend(rid, 2, idempotency_key=key).outcome == MISMATCH
    assert target.api.extend(rid, 1, idempotency_key=key, metadata={}).outcome == MISMATCH


@pytest.mark.parametrize("first_dry", [True, False])
def test_dry_run_and_live_key_mismatch_precedes_a_denial(target: Target, first_dry: bool) -> None:
    key = fresh_key()
    target.api.reserve(idempotency_key=key, dry_run=first_dry)
    target.seed(status="FROZEN")
    assert target.api.reserve(idempotency_key=key, dry_run=not first_dry).outcome == MISMATCH


# --- lifetimes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "lifetime"), [("decide", DAY), ("dry", DAY), ("reserve", DAY), ("event", 7 * DAY)])
def test_the_lifetime_of_a_key(target: Target, call: str, lifetime: int) -> None:
    key = fresh_key()

    def call_with(estimate: int) -> Response:
        if call == "dry":
            return target.api.reserve(estimate, idempotency_key=key, dry_run=True)
        response: Response = getattr(target.api, call)(estimate, idempotency_key=key)
        return response

    call_with(1)
    target.clock.advance(lifetime)
    assert call_with(2).outcome == MISMATCH
    target.clock.advance(1)
    assert call_with(2).status in (200, 201)


def test_the_key_of_a_long_lease_lives_until_it_expires(target: Target) -> None:
    target.ledger.set_tenant("tenant-a", max_reservation_ttl_ms=DAY)
    key = fresh_key()
    target.api.reserve(idempotency_key=key, ttl_ms=DAY, grace_period_ms=60_000)
    target.clock.advance(DAY + 60_000)
    assert target.api.reserve(2, idempotency_key=key).outcome == MISMATCH
    target.clock.advance(1)
    assert target.api.reserve(2, idempotency_key=key).status == 200


def test_the_key_of_an_extension_lives_until_its_expiry(target: Target) -> None:
    rid, key = target.api.held(ttl_ms=10_000), fresh_key()
    target.api.extend(rid, 5_000, idempotency_key=key)
    target.api.extend(rid, 60_000)
    target.clock.advance(15_000)
    assert target.api.extend(rid, 1, idempotency_key=key).outcome == MISMATCH
    target.clock.advance(1)
    assert target.api.extend(rid, 1, idempotency_key=key).body["remaining_ttl_ms"] == 60_000


@pytest.mark.parametrize("end", ["commit", "release"])
def test_a_finalized_reservation_and_its_key_live_thirty_days(target: Target, end: str) -> None:
    rid, key = target.api.held(), fresh_key()
    first: Response = getattr(target.api, end)(rid, idempotency_key=key)
    target.clock.advance(30 * DAY)
    assert getattr(target.api, end)(rid, idempotency_key=key).body == first.body
    assert target.api.row(rid).status == 200
    target.clock.advance(1)
    assert getattr(target.api, end)(rid, idempotency_key=key).outcome == (404, "NOT_FOUND")
    assert target.api.row(rid).outcome == (404, "NOT_FOUND")
