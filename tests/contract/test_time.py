"""Expiry, grace period and sweeper: inclusive limits on the server's clock."""

from __future__ import annotations

from .kit import World

A = "tenant:tenant-a"
DAY = 86_400_000


def test_expiry_and_grace_period_are_inclusive(world: World) -> None:
    committed, released, extended = (world.api.held(ttl_ms=10_000, grace_period_ms=2_000) for _ in range(3))
    world.clock.advance(10_000)
    assert world.api.extend(extended, 1).status == 200
    world.clock.advance(2_000)
    assert world.api.commit(committed).status == 200
    assert world.api.release(released).status == 200


def test_the_grace_period_allows_settlement_but_no_extension(world: World) -> None:
    rid = world.api.held(ttl_ms=10_000, grace_period_ms=2_000)
    world.clock.advance(10_001)
    assert world.api.extend(rid).outcome == (410, "RESERVATION_EXPIRED")
    assert world.api.row(rid).body["status"] == "ACTIVE"
    assert world.api.commit(rid).status == 200


def test_the_reserved_amount_returns_after_the_grace_period(world: World) -> None:
    rid = world.api.held(ttl_ms=10_000, grace_period_ms=2_000)
    world.clock.advance(12_001)
    assert world.api.balances().numbers == (1_000_000, 0, 0, 0)
    assert world.api.commit(rid).outcome == (410, "RESERVATION_EXPIRED")
    assert world.api.release(rid).outcome == (410, "RESERVATION_EXPIRED")
    assert world.api.row(rid).outcome == (410, "RESERVATION_EXPIRED")


def test_the_default_grace_period_is_five_seconds(world: World) -> None:
    absent, null = world.api.held(), world.api.held(grace_period_ms=None)
    world.clock.advance(65_000)
    assert world.api.commit(absent).status == 200
    assert world.api.commit(null).status == 200
    late = world.api.held()
    world.clock.advance(65_001)
    assert world.api.commit(late).outcome == (410, "RESERVATION_EXPIRED")


def test_an_extended_lease_expires_at_its_new_time(world: World) -> None:
    rid = world.api.held(ttl_ms=10_000, grace_period_ms=0)
    world.api.extend(rid, 5_000)
    world.clock.advance(15_000)
    assert world.numbers()[1] == 1000
    world.clock.advance(1)
    assert world.numbers()[1] == 0


def test_expired_rows_are_listed_without_a_final_time_for_thirty_days(world: World) -> None:
    rid = world.api.held(ttl_ms=10_000, grace_period_ms=0)
    world.clock.advance(20_000)
    (row,) = world.api.rows(status="EXPIRED").body["reservations"]
    assert row["reservation_id"] == rid
    assert "finalized_at_ms" not in row
    world.clock.advance(30 * DAY - 10_000)
    assert world.api.row(rid).status == 410
    world.clock.advance(1)
    assert world.api.row(rid).outcome == (404, "NOT_FOUND")


def test_a_sweep_after_a_month_without_requests(world: World) -> None:
    rid = world.api.held()
    world.clock.advance(31 * DAY)
    assert world.api.row(rid).outcome == (404, "NOT_FOUND")
    assert world.numbers() == (1_000_000, 0, 0, 0)


def test_expiry_returns_the_amount_but_repays_no_debt(world: World) -> None:
    world.seed(allocated=1000, overdraft_limit=500)
    world.api.held(400, ttl_ms=1000, grace_period_ms=0)
    world.api.event(700, overage_policy="ALLOW_WITH_OVERDRAFT")
    assert world.numbers() == (-100, 400, 600, 100)
    world.clock.advance(1001)
    assert world.numbers() == (300, 0, 600, 100)


def test_settled_reservations_are_never_swept(world: World) -> None:
    rid = world.api.held(ttl_ms=1000, grace_period_ms=0)
    world.api.commit(rid, 600)
    world.clock.advance(DAY)
    assert world.api.row(rid).body["status"] == "COMMITTED"
    assert world.numbers() == (999_400, 0, 600, 0)
