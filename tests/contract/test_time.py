"""Expiry, grace period and sweeper: inclusive limits on the server's clock."""

from __future__ import annotations

from .kit import Target

A = "tenant:tenant-a"
DAY = 86_400_000


def test_expiry_and_grace_period_are_inclusive(target: Target) -> None:
    committed, released, extended = (target.api.held(ttl_ms=10_000, grace_period_ms=2_000) for _ in range(3))
    target.clock.advance(10_000)
    assert target.api.extend(extended, 1).status == 200
    target.clock.advance(2_000)
    assert target.api.commit(committed).status == 200
    assert target.api.release(released).status == 200


def test_the_grace_period_allows_settlement_but_no_extension(target: Target) -> None:
    rid = target.api.held(ttl_ms=10_000, grace_period_ms=2_000)
    target.clock.advance(10_001)
    assert target.api.extend(rid).outcome == (410, "RESERVATION_EXPIRED")
    assert target.api.row(rid).body["status"] == "ACTIVE"
    assert target.api.commit(rid).status == 200


def test_the_reserved_amount_returns_after_the_grace_period(target: Target) -> None:
    rid = target.api.held(ttl_ms=10_000, grace_period_ms=2_000)
    target.clock.advance(12_001)
    assert target.api.balances().numbers == (1_000_000, 0, 0, 0)
    assert target.api.commit(rid).outcome == (410, "RESERVATION_EXPIRED")
    assert target.api.release(rid).outcome == (410, "RESERVATION_EXPIRED")
    assert target.api.row(rid).outcome == (410, "RESERVATION_EXPIRED")


def test_the_default_grace_period_is_five_seconds(target: Target) -> None:
    absent, null = target.api.held(), target.api.held(grace_period_ms=None)
    target.clock.advance(65_000)
    assert target.api.commit(absent).status == 200
    assert target.api.commit(null).status == 200
    late = target.api.held()
    target.clock.advance(65_001)
    assert target.api.commit(late).outcome == (410, "RESERVATION_EXPIRED")


def test_an_extended_lease_expires_at_its_new_time(target: Target) -> None:
    rid = target.api.held(ttl_ms=10_000, grace_period_ms=0)
    target.api.extend(rid, 5_000)
    target.clock.advance(15_000)
    assert target.numbers()[1] == 1000
    target.clock.advance(1)
    assert target.numbers()[1] == 0


def test_expired_rows_are_listed_without_a_final_time_for_thirty_days(target: Target) -> None:
    rid = target.api.held(ttl_ms=10_000, grace_period_ms=0)
    target.clock.advance(20_000)
    (row,) = target.api.rows(status="EXPIRED").body["reservations"]
    assert row["reservation_id"] == rid
    assert "finalized_at_ms" not in row
    target.clock.advance(30 * DAY - 10_000)
    assert target.api.row(rid).status == 410
    target.clock.advance(1)
    assert target.api.row(rid).outcome == (404, "NOT_FOUND")


def test_a_sweep_after_a_month_without_requests(target: Target) -> None:
    rid = target.api.held()
    target.clock.advance(31 * DAY)
    assert target.api.row(rid).outcome == (404, "NOT_FOUND")
    assert target.numbers() == (1_000_000, 0, 0, 0)


def test_expiry_returns_the_amount_but_repays_no_debt(target: Target) -> None:
    target.seed(allocated=1000, overdraft_limit=500)
    target.api.held(400, ttl_ms=1000, grace_period_ms=0)
    target.api.event(700, overage_policy="ALLOW_WITH_OVERDRAFT")
    assert target.numbers() == (-100, 400, 600, 100)
    target.clock.advance(1001)
    assert target.numbers() == (300, 0, 600, 100)


def test_settled_reservations_are_never_swept(target: Target) -> None:
    rid = target.api.held(ttl_ms=1000, grace_period_ms=0)
    target.api.commit(rid, 600)
    target.clock.advance(DAY)
    assert target.api.row(rid).body["status"] == "COMMITTED"
    assert target.numbers() == (999_400, 0, 600, 0)
