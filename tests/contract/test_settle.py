"""Commit, release and extend: responses, balances, and the order of errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .kit import Api, Response, Target, amount, fresh_key

A = "tenant:tenant-a"
Act = Callable[[Api, str], Response]
ACTS: dict[str, Act] = {
    "commit": lambda api, rid: api.commit(rid),
    "release": lambda api, rid: api.release(rid),
    "extend": lambda api, rid: api.extend(rid),
}
each_act = pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)


def test_a_commit_of_the_whole_estimate_has_no_released(target: Target) -> None:
    response = target.api.commit(target.api.held(1000), 1000)
    assert response.body.keys() == {"status", "charged", "balances"}
    assert response.numbers == (999_000, 0, 1000, 0)


def test_a_commit_of_zero(target: Target) -> None:
    response = target.api.commit(target.api.held(1000), 0)
    assert (response.body["charged"], response.body["released"]) == (amount(0), amount(1000))
    assert response.numbers == (1_000_000, 0, 0, 0)


def test_release_returns_the_whole_amount(target: Target) -> None:
    response = target.api.release(target.api.held(1000), reason="no longer needed")
    assert response.body.keys() == {"status", "released", "balances"}
    assert response.body["released"] == amount(1000)
    assert response.numbers == (1_000_000, 0, 0, 0)
    assert target.api.release(target.api.held(0)).body["released"] == amount(0)


def test_only_scopes_with_a_budget_at_reserve_time_change(target: Target) -> None:
    subject = {"tenant": "tenant-a", "agent": "late"}
    rid = target.api.held(1000, subject=subject)
    target.seed(f"{A}/agent:late", 5_000)
    assert len(target.api.commit(rid, 900).body["balances"]) == 1
    assert target.numbers(f"{A}/agent:late") == (5_000, 0, 0, 0)


@pytest.mark.parametrize("status", ["FROZEN", "CLOSED"])
def test_a_frozen_or_closed_budget_still_settles(target: Target, status: str) -> None:
    committed, released, extended = target.api.held(), target.api.held(), target.api.held()
    target.seed(status=status)
    assert target.numbers() == (997_000, 3000, 0, 0)  # the reserved amounts stay
    assert target.api.commit(committed, 400).numbers == (997_600, 2000, 400, 0)
    assert target.api.release(released).numbers == (998_600, 1000, 400, 0)
    assert target.api.extend(extended).numbers == (998_600, 1000, 400, 0)


def test_a_reservation_can_end_after_its_budget_was_deleted(target: Target) -> None:
    rid, key = target.api.held(), fresh_key()
    target.ledger.delete_budget(A, unit="TOKENS")
    first = target.api.commit(rid, 900, idempotency_key=key)
    assert (first.status, first.body["charged"]) == (200, amount(900))
    assert target.api.commit(rid, 900, idempotency_key=key).body == first.body


@each_act
def test_an_unknown_id_is_404_for_every_tenant(target: Target, act: Act) -> None:
    assert act(target.api, "00000000-0000-4000-8000-000000000000").outcome == (404, "NOT_FOUND")
    assert act(target.other, "nothing").outcome == (404, "NOT_FOUND")


@each_act
def test_a_reservation_of_another_tenant_is_403(target: Target, act: Act) -> None:
    rid = target.api.held()
    assert act(target.other, rid).outcome == (403, "FORBIDDEN")
    assert target.api.row(rid).body["status"] == "ACTIVE"


@each_act
@pytest.mark.parametrize(("length", "outcome"), [(128, (404, "NOT_FOUND")), (129, (400, "INVALID_REQUEST"))])
def test_the_length_of_an_id(api: Api, act: Act, length: int, outcome: tuple[int, str]) -> None:
    assert act(api, "x" * length).outcome == outcome


@each_act
def test_expiry_is_checked_before_the_unit(target: Target, act: Act) -> None:
    rid = target.api.held(ttl_ms=1000, grace_period_ms=0)
    target.clock.advance(1001)
    assert act(target.api, rid).outcome == (410, "RESERVATION_EXPIRED")
    assert target.api.commit(rid, 1, "CREDITS").outcome == (410, "RESERVATION_EXPIRED")


def test_the_unit_is_checked_after_finalization(api: Api) -> None:
    rid = api.held()
    api.commit(rid, 1)
    assert api.commit(rid, 1, "CREDITS").outcome == (409, "RESERVATION_FINALIZED")


def test_extend_counts_from_the_expiry_and_is_not_clamped(target: Target) -> None:
    made = target.api.reserve(ttl_ms=60_000).body
    target.clock.advance(10_000)
    response = target.api.extend(made["reservation_id"], 86_400_000)
    assert response.body.keys() == {"status", "expires_at_ms", "remaining_ttl_ms", "balances"}
    assert response.body["expires_at_ms"] == made["expires_at_ms"] + 86_400_000
    assert response.body["remaining_ttl_ms"] == 86_450_000


def test_a_reservation_has_at_most_ten_extensions(target: Target) -> None:
    rid, key = target.api.held(), fresh_key()
    assert target.api.extend(rid, 1, idempotency_key=key).status == 200
    for _ in range(9):
        assert target.api.extend(rid, 0).status == 400  # failures do not count
        assert target.api.extend(rid, 1, idempotency_key=key).status == 200  # replays do not count either
        assert target.api.extend(rid, 1).status == 200
    assert target.api.extend(rid, 1).outcome == (409, "MAX_EXTENSIONS_EXCEEDED")
    target.clock.advance(60_000 + 5_000)
    assert target.api.extend(rid, 1).outcome == (410, "RESERVATION_EXPIRED")  # the time is checked first


def test_metrics_and_metadata_of_a_commit(target: Target) -> None:
    rid = target.api.held(metadata={"run": 1})
    metrics = {"tokens_input": 2**31 - 1, "tokens_output": 0, "latency_ms": 5, "model_version": "m", "custom": {"a": 1}}
    assert target.api.commit(rid, metrics=metrics, metadata={"b": [1, None]}).status == 200
    row = target.api.row(rid).body
    assert (row["metadata"], row["committed_metadata"]) == ({"run": 1}, {"b": [1, None]})
    assert "metrics" not in row


# --- closed and suspended tenants ------------------------------------------------------------------------------------


def test_the_admin_key_cannot_release_in_a_closed_tenant_but_gets_replays(target: Target) -> None:
    released, held, key = target.api.held(), target.api.held(), fresh_key()
    first = target.admin.release(released, idempotency_key=key)
    target.ledger.set_tenant("tenant-a", status="CLOSED")
    assert target.admin.release(held).outcome == (409, "TENANT_CLOSED")
    assert target.admin.release(released).outcome == (409, "TENANT_CLOSED")  # before "finalized"
    assert target.admin.release(released, idempotency_key=key).body == first.body
    assert target.admin.row(held).body["status"] == "ACTIVE"


def test_only_authentication_rejects_a_suspended_tenant(target: Target) -> None:
    rid = target.api.held()
    target.ledger.set_tenant("tenant-a", status="SUSPENDED")
    assert target.api.release(rid).outcome == (401, "UNAUTHORIZED")
    assert target.admin.release(rid).status == 200
