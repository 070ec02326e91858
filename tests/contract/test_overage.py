"""The three overage policies, on one scope and on several, for commits and for events."""

from __future__ import annotations

from typing import Any

import pytest

from .kit import World, amount, numbers

A = "tenant:tenant-a"
CHILD = f"{A}/workspace:w"
AT_CHILD = {"tenant": "tenant-a", "workspace": "w"}
AIA, AWO = "ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT"


def overrun(world: World, held: int, actual: int, policy: str) -> Any:
    """Commit more than the reserved amount, at the child."""
    return world.api.commit(world.api.held(held, subject=AT_CHILD, overage_policy=policy), actual)


def shown(response: Any) -> list[tuple[int, int, int, int]]:
    return [numbers(item) for item in response.body["balances"]]


def test_the_excess_is_charged_in_full_if_available(world: World) -> None:
    for policy in (AIA, AWO):
        response = world.api.commit(world.api.held(100, overage_policy=policy), 150)
        assert response.body.keys() == {"status", "charged", "balances"}
        assert response.body["charged"] == amount(150)
    assert world.numbers() == (999_700, 0, 300, 0)


def test_if_available_is_capped_by_the_smallest_remainder(world: World) -> None:
    world.seed(CHILD, 130)
    response = overrun(world, 100, 200, AIA)
    assert response.body["charged"] == amount(130)
    assert shown(response) == [(999_870, 0, 130, 0), (0, 0, 130, 0)]
    assert (world.over_limit(), world.over_limit(CHILD)) == (False, True)  # only the scope that was short


def test_if_available_flags_every_scope_that_was_short(world: World) -> None:
    world.seed(allocated=150)
    world.seed(CHILD, 130)
    response = overrun(world, 100, 200, AIA)
    assert shown(response) == [(20, 0, 130, 0), (0, 0, 130, 0)]
    assert (world.over_limit(), world.over_limit(CHILD)) == (True, True)


def test_if_available_charges_nothing_from_a_negative_remainder(world: World) -> None:
    rid = world.api.held(100, overage_policy=AIA)
    world.seed(allocated=100, debt=50, overdraft_limit=100)  # 100 held, 50 in debt
    assert world.numbers() == (-50, 100, 0, 50)
    response = world.api.commit(rid, 500)
    assert response.body["charged"] == amount(100)
    assert response.numbers == (-50, 0, 100, 50)
    assert world.over_limit() is True


def test_the_over_limit_flag_stays_until_funding(world: World) -> None:
    world.seed(allocated=100)
    held = world.api.held(0)
    world.api.event(200, overage_policy=AIA)
    assert world.over_limit() is True
    world.api.release(held)
    assert world.over_limit() is True
    assert world.api.reserve(0).outcome == (409, "OVERDRAFT_LIMIT_EXCEEDED")
    from cycles._core.amounts import tokens

    world.ledger.fund(A, tokens(50))
    assert world.api.reserve(50).status == 200


def test_overdraft_is_allowed_up_to_its_limit(world: World) -> None:
    world.seed(allocated=1000, overdraft_limit=500)
    first, second = (world.api.held(500, overage_policy=AWO) for _ in range(2))
    assert world.api.commit(first, 1001).outcome == (409, "OVERDRAFT_LIMIT_EXCEEDED")
    assert world.numbers() == (0, 1000, 0, 0)
    assert world.api.commit(first, 1000).numbers == (-500, 500, 500, 500)
    assert world.api.commit(second, 501).outcome == (409, "OVERDRAFT_LIMIT_EXCEEDED")
    assert world.api.commit(second, 500).numbers == (-500, 0, 1000, 500)
    assert world.over_limit() is False


def test_overdraft_uses_the_remaining_amount_first(world: World) -> None:
    world.seed(allocated=130, overdraft_limit=500)
    response = world.api.commit(world.api.held(100, overage_policy=AWO), 200)
    assert response.numbers == (-70, 0, 130, 70)
    assert response.body["balances"][0]["debt"] == amount(70)
    assert response.body["balances"][0]["overdraft_limit"] == amount(500)


def test_a_scope_without_overdraft_caps_the_others(world: World) -> None:
    world.seed(allocated=110, overdraft_limit=500)
    world.seed(CHILD, 130)
    response = overrun(world, 100, 200, AWO)
    assert response.body["charged"] == amount(130)
    assert shown(response) == [(-20, 0, 110, 20), (0, 0, 130, 0)]
    assert (world.over_limit(), world.over_limit(CHILD)) == (False, True)


def test_the_overdraft_limit_applies_to_the_capped_charge(world: World) -> None:
    world.seed(allocated=100, overdraft_limit=30)
    world.seed(CHILD, 130)
    assert overrun(world, 100, 500, AWO).body["charged"] == amount(130)
    world.seed(allocated=100, overdraft_limit=29)
    world.seed(CHILD, 130)
    assert overrun(world, 100, 500, AWO).outcome == (409, "OVERDRAFT_LIMIT_EXCEEDED")


def test_debt_above_its_limit_cannot_grow(world: World) -> None:
    rid = world.api.held(100, overage_policy=AWO)
    world.seed(allocated=100, debt=50, overdraft_limit=40)
    assert world.api.commit(rid, 101).outcome == (409, "OVERDRAFT_LIMIT_EXCEEDED")
    assert world.api.commit(rid, 100).status == 200


def test_release_never_repays_debt(world: World) -> None:
    world.seed(allocated=1000, overdraft_limit=500)
    kept = world.api.held(500)
    world.api.event(600, overage_policy=AWO)
    assert world.numbers() == (-100, 500, 500, 100)
    assert world.api.release(kept).numbers == (400, 0, 500, 100)


# --- events -----------------------------------------------------------------------------------------------------------


def test_an_event_with_policy_reject(world: World) -> None:
    world.seed(CHILD, 99)
    assert world.api.event(100, subject=AT_CHILD, overage_policy="REJECT").outcome == (409, "BUDGET_EXCEEDED")
    assert world.numbers() == (1_000_000, 0, 0, 0)
    response = world.api.event(99, subject=AT_CHILD, overage_policy="REJECT")
    assert (response.status, shown(response)) == (201, [(999_901, 0, 99, 0), (0, 0, 99, 0)])


def test_an_event_checks_each_scope_completely_before_the_next(world: World) -> None:
    world.seed(allocated=10)
    world.seed(CHILD, status="CLOSED")
    assert world.api.event(11, subject=AT_CHILD, overage_policy="REJECT").outcome == (409, "BUDGET_EXCEEDED")
    assert world.api.event(11, subject=AT_CHILD, overage_policy=AIA).outcome == (409, "BUDGET_CLOSED")


def test_an_event_if_available_charges_what_remains(world: World) -> None:
    world.seed(allocated=30)
    response = world.api.event(100)
    assert (response.status, response.body["charged"], response.numbers) == (201, amount(30), (0, 0, 30, 0))
    again = world.api.event(100)
    assert (again.status, again.body["charged"]) == (201, amount(0))
    assert world.over_limit() is True


def test_an_event_with_overdraft(world: World) -> None:
    world.seed(allocated=30, overdraft_limit=70)
    response = world.api.event(100, overage_policy=AWO)
    assert "charged" not in response.body
    assert response.numbers == (-70, 0, 30, 70)
    assert world.api.event(1, overage_policy=AWO).outcome == (409, "OVERDRAFT_LIMIT_EXCEEDED")
    assert world.api.event(0, overage_policy=AWO).status == 201


def test_an_event_is_capped_by_a_scope_without_overdraft(world: World) -> None:
    world.seed(allocated=50, overdraft_limit=100)
    world.seed(CHILD, 80)
    response = world.api.event(100, subject=AT_CHILD, overage_policy=AWO)
    assert response.body["charged"] == amount(80)
    assert shown(response) == [(-30, 0, 50, 30), (0, 0, 80, 0)]
    assert (world.over_limit(), world.over_limit(CHILD)) == (False, True)


@pytest.mark.parametrize("blocked", [{"is_over_limit": True}, {"debt": 5}])
def test_debt_and_the_over_limit_flag_do_not_block_an_event(world: World, blocked: dict[str, Any]) -> None:
    world.seed(**blocked)
    assert world.api.event(1).status == 201


def test_an_event_uses_the_current_default_policy(world: World) -> None:
    world.seed(allocated=10)
    world.ledger.set_tenant("tenant-a", default_commit_overage_policy="REJECT")
    assert world.api.event(11).outcome == (409, "BUDGET_EXCEEDED")
    assert world.api.event(11, overage_policy=AIA).status == 201


@pytest.mark.parametrize("unit", ["USD_MICROCENTS", "CREDITS", "RISK_POINTS"])
def test_units_are_separate_accounts(world: World, unit: str) -> None:
    world.seed(unit=unit, allocated=77)
    assert world.api.event(7, unit).numbers == (70, 0, 7, 0)
    assert world.numbers() == (1_000_000, 0, 0, 0)
