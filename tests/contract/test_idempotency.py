"""Idempotency keys: namespaces, lifetimes, replays, and payload comparison."""

from __future__ import annotations

from typing import Any

import pytest

from .kit import ABSENT, Api, Response, World, fresh_key

A = "tenant:tenant-a"
DAY = 86_400_000
MISMATCH = (409, "IDEMPOTENCY_MISMATCH")


def stable(response: Response) -> tuple[int, dict[str, Any]]:
    return response.status, {name: value for name, value in response.body.items() if name != "remaining_ttl_ms"}


# --- replays ----------------------------------------------------------------------------------------------------------


def test_a_replay_is_the_first_response_with_its_numbers(world: World) -> None:
    key, event_key, decide_key = fresh_key(), fresh_key(), fresh_key()
    first, event = world.api.reserve(idempotency_key=key), world.api.event(5, idempotency_key=event_key)
    decided = world.api.decide(idempotency_key=decide_key)
    before = world.numbers()
    assert stable(world.api.reserve(idempotency_key=key)) == stable(first)
    again = world.api.event(5, idempotency_key=event_key)
    assert (again.status, again.body) == (201, event.body)
    assert world.api.decide(idempotency_key=decide_key).body == decided.body
    assert world.numbers() == before


def test_a_replay_has_a_new_request_id(api: Api) -> None:
    key = fresh_key()
    first, again = api.reserve(idempotency_key=key), api.reserve(idempotency_key=key)
    assert first.headers["X-Request-Id"] != again.headers["X-Request-Id"]


def test_a_replay_computes_remaining_ttl_again(world: World) -> None:
    key, extend_key = fresh_key(), fresh_key()
    first = world.api.reserve(idempotency_key=key)
    rid = first.body["reservation_id"]
    extended = world.api.extend(rid, 10_000, idempotency_key=extend_key)
    world.clock.advance(20_000)
    assert world.api.extend(rid, 50_000).body["remaining_ttl_ms"] == 100_000
    for again, was, left in (
        (world.api.reserve(idempotency_key=key), first, 40_000),
        (world.api.extend(rid, 10_000, idempotency_key=extend_key), extended, 50_000),
    ):
        assert again.body["remaining_ttl_ms"] == left  # from the expiry of that response; later extensions do not count
        assert stable(again) == stable(was)
    world.clock.advance(45_000)
    assert world.api.reserve(idempotency_key=key).body["remaining_ttl_ms"] == 0


@pytest.mark.parametrize("end", ["commit", "release"])
def test_remaining_ttl_of_a_replay_is_zero_after_the_end(world: World, end: str) -> None:
    key, extend_key = fresh_key(), fresh_key()
    rid = world.api.reserve(idempotency_key=key).body["reservation_id"]
    extended = world.api.extend(rid, idempotency_key=extend_key)
    getattr(world.api, end)(rid)
    assert world.api.reserve(idempotency_key=key).body["remaining_ttl_ms"] == 0
    again = world.api.extend(rid, idempotency_key=extend_key)
    assert (again.body["remaining_ttl_ms"], again.body["status"]) == (0, "ACTIVE")
    assert stable(again) == stable(extended)


def test_a_dry_run_replay_has_no_remaining_ttl(world: World) -> None:
    key = fresh_key()
    first = world.api.reserve(idempotency_key=key, dry_run=True)
    world.api.event(5)
    assert world.api.reserve(idempotency_key=key, dry_run=True).body == first.body


def test_replays_precede_checks_of_budgets_tenants_and_states(world: World) -> None:
    keys = [fresh_key() for _ in range(4)]
    rid = world.api.reserve(idempotency_key=keys[0]).body["reservation_id"]
    world.api.event(1, idempotency_key=keys[1])
    world.api.decide(idempotency_key=keys[2])
    committed = world.api.commit(rid, 5, idempotency_key=keys[3])
    world.ledger.set_tenant("tenant-a", status="NONSENSE")
    world.ledger.delete_budget(A, unit="TOKENS")
    assert world.api.reserve(idempotency_key=keys[0]).status == 200
    assert world.api.event(1, idempotency_key=keys[1]).status == 201
    assert world.api.decide(idempotency_key=keys[2]).body["decision"] == "ALLOW"
    assert world.api.commit(rid, 5, idempotency_key=keys[3]).body == committed.body


def test_stored_denials_are_replayed_after_a_refill(world: World) -> None:
    world.seed(allocated=10)
    dry, decided = fresh_key(), fresh_key()
    for _ in range(2):
        assert world.api.reserve(idempotency_key=dry, dry_run=True).body["decision"] == "DENY"
        assert world.api.decide(idempotency_key=decided).body["reason_code"] == "BUDGET_EXCEEDED"
        world.seed(allocated=1_000_000)


# --- failures store no response ---------------------------------------------------------------------------------------


def test_a_rejected_key_can_be_used_again_with_another_body(world: World) -> None:
    key = fresh_key()
    assert world.api.reserve(99_999_999, idempotency_key=key).status == 409
    assert world.api.reserve(5, idempotency_key=key).status == 200
    rid = world.api.held(1000)
    assert world.api.commit(rid, 2000, idempotency_key=key).status == 409
    assert world.api.commit(rid, 500, idempotency_key=key).status == 200
    assert world.api.event(5, "CREDITS", idempotency_key=key).status == 400
    assert world.api.event(5, idempotency_key=key).status == 201
    assert world.api.decide(5, "CREDITS", idempotency_key=key).status == 400
    assert world.api.decide(5, idempotency_key=key).status == 200


# --- namespaces -------------------------------------------------------------------------------------------------------


def test_one_key_works_on_every_endpoint_and_on_two_reservations(world: World) -> None:
    key = fresh_key()
    first = world.api.reserve(idempotency_key=key).body["reservation_id"]
    second = world.api.held()
    assert world.api.decide(idempotency_key=key).status == 200
    assert world.api.event(idempotency_key=key).status == 201
    for rid in (first, second):
        assert world.api.extend(rid, idempotency_key=key).status == 200
    assert world.api.commit(first, idempotency_key=key).status == 200
    assert world.api.release(second, idempotency_key=key).status == 200
    assert world.api.release(first, idempotency_key=key).outcome == (409, "RESERVATION_FINALIZED")


def test_two_tenants_can_use_the_same_key(world: World) -> None:
    key = fresh_key()
    mine, theirs = world.api.reserve(idempotency_key=key), world.other.reserve(idempotency_key=key)
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
def test_equivalent_payloads_are_replayed(world: World, first: dict[str, Any], again: dict[str, Any]) -> None:
    key = fresh_key()
    made = world.api.reserve(idempotency_key=key, **first)
    assert stable(world.api.reserve(idempotency_key=key, **again)) == stable(made)


@pytest.mark.parametrize(("first", "again"), OTHER)
def test_another_payload_is_a_mismatch(world: World, first: dict[str, Any], again: dict[str, Any]) -> None:
    key = fresh_key()
    assert world.api.reserve(idempotency_key=key, **first).status == 200
    before = world.numbers()
    assert world.api.reserve(idempotency_key=key, **again).outcome == MISMATCH
    assert world.numbers() == before


def test_every_operation_detects_another_payload(world: World) -> None:
    key, rid = fresh_key(), world.api.held()
    world.api.decide(1, idempotency_key=key)
    world.api.event(1, idempotency_key=key)
    world.api.extend(rid, 1, idempotency_key=key)
    assert world.api.decide(2, idempotency_key=key).outcome == MISMATCH
    assert world.api.event(2, idempotency_key=key).outcome == MISMATCH
    assert world.api.extend(rid, 2, idempotency_key=key).outcome == MISMATCH
    assert world.api.extend(rid, 1, idempotency_key=key, metadata={}).outcome == MISMATCH


@pytest.mark.parametrize("first_dry", [True, False])
def test_dry_run_and_live_key_mismatch_precedes_a_denial(world: World, first_dry: bool) -> None:
    key = fresh_key()
    world.api.reserve(idempotency_key=key, dry_run=first_dry)
    world.seed(status="FROZEN")
    assert world.api.reserve(idempotency_key=key, dry_run=not first_dry).outcome == MISMATCH


# --- lifetimes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "lifetime"), [("decide", DAY), ("dry", DAY), ("reserve", DAY), ("event", 7 * DAY)])
def test_the_lifetime_of_a_key(world: World, call: str, lifetime: int) -> None:
    key = fresh_key()

    def call_with(estimate: int) -> Response:
        if call == "dry":
            return world.api.reserve(estimate, idempotency_key=key, dry_run=True)
        response: Response = getattr(world.api, call)(estimate, idempotency_key=key)
        return response

    call_with(1)
    world.clock.advance(lifetime)
    assert call_with(2).outcome == MISMATCH
    world.clock.advance(1)
    assert call_with(2).status in (200, 201)


def test_the_key_of_a_long_lease_lives_until_it_expires(world: World) -> None:
    world.ledger.set_tenant("tenant-a", max_reservation_ttl_ms=DAY)
    key = fresh_key()
    world.api.reserve(idempotency_key=key, ttl_ms=DAY, grace_period_ms=60_000)
    world.clock.advance(DAY + 60_000)
    assert world.api.reserve(2, idempotency_key=key).outcome == MISMATCH
    world.clock.advance(1)
    assert world.api.reserve(2, idempotency_key=key).status == 200


def test_the_key_of_an_extension_lives_until_its_expiry(world: World) -> None:
    rid, key = world.api.held(ttl_ms=10_000), fresh_key()
    world.api.extend(rid, 5_000, idempotency_key=key)
    world.api.extend(rid, 60_000)
    world.clock.advance(15_000)
    assert world.api.extend(rid, 1, idempotency_key=key).outcome == MISMATCH
    world.clock.advance(1)
    assert world.api.extend(rid, 1, idempotency_key=key).body["remaining_ttl_ms"] == 60_000


@pytest.mark.parametrize("end", ["commit", "release"])
def test_a_finalized_reservation_and_its_key_live_thirty_days(world: World, end: str) -> None:
    rid, key = world.api.held(), fresh_key()
    first: Response = getattr(world.api, end)(rid, idempotency_key=key)
    world.clock.advance(30 * DAY)
    assert getattr(world.api, end)(rid, idempotency_key=key).body == first.body
    assert world.api.row(rid).status == 200
    world.clock.advance(1)
    assert getattr(world.api, end)(rid, idempotency_key=key).outcome == (404, "NOT_FOUND")
    assert world.api.row(rid).outcome == (404, "NOT_FOUND")
