"""More spent than reserved: the three policies, on one scope and on several, for commits and for events."""

from __future__ import annotations

from typing import Any

import pytest

from .kit import World, amount, numbers

A = "tenant:tenant-a"
CHILD = f"{A}/workspace:w"
AT_CHILD = {"tenant": "tenant-a", "workspace": "w"}
AIA, AWO = "ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT"


def overrun(world: World, held: int, actual: int, policy: str) -> Any:
    """Commit more than was held, at the child."""
    return world.api.commit(world.api.held(held, subject=AT_CHILD, overage_policy=policy), actual)


def shown(answer: Any) -> list[tuple[int, int, int, int]]:
    return [numbers(item) for item in answer.body["balances"]]


def test_in_full_where_there_is_enough(world: World) -> None:
    for policy in (AIA, AWO):
        answer = world.api.commit(world.api.held(100, overage_policy=policy), 150)
        assert answer.body.keys() == {"status", "charged", "balances"}
        assert answer.body["charged"] == amount(150)
    assert world.numbers() == (999_700, 0, 300, 0)


def test_if_available_is_capped_by_the_poorest_scope_for_all(world: World) -> None:
    world.seed(CHILD, 130)
    answer = overrun(world, 100, 200, AIA)
    assert answer.body["charged"] == amount(130)
    assert shown(answer) == [(999_870, 0, 130, 0), (0, 0, 130, 0)]
    assert (world.over_limit(), world.over_limit(CHILD)) == (False, True)  # only the one that was short


def test_if_available_marks_every_scope_that_was_short_of_the_whole(world: World) -> None:
    world.seed(allocated=150)
    world.seed(CHILD, 130)
    answer = overrun(world, 100, 200, AIA)
    assert shown(answer) == [(20, 0, 130, 0), (0, 0, 130, 0)]
    assert (world.over_limit(), world.over_limit(CHILD)) == (True, True)


def test_if_available_takes_nothing_from_a_negative_remainder(world: World) -> None:
    rid = world.api.held(100, overage_policy=AIA)
    world.seed(allocated=100, debt=50, overdraft_limit=100)  # 100 held, 50 in debt
    assert world.numbers() == (-50, 100, 0, 50)
    answer = world.api.commit(rid, 500)
    assert answer.body["charged"] == amount(100)
    assert answer.numbers == (-50, 0, 100, 50)
    assert world.over_limit() is True


def test_the_mark_stays_until_someone_funds(world: World) -> None:
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


def test_overdraft_up_to_the_limit_and_not_one_more(world: World) -> None:
    world.seed(allocated=1000, overdraft_limit=500)
    first, second = (world.api.held(500, overage_policy=AWO) for _ in range(2))
    assert world.api.commit(first, 1001).outcome == (409, "OVERDRAFT_LIMIT_EXCEEDED")
    assert world.numbers() == (0, 1000, 0, 0)
    assert world.api.commit(first, 1000).numbers == (-500, 500, 500, 500)
    assert world.api.commit(second, 501).outcome == (409, "OVERDRAFT_LIMIT_EXCEEDED")
    assert world.api.commit(second, 500).numbers == (-500, 0, 1000, 500)
    assert world.over_limit() is False


def test_overdraft_takes_what_is_left_first(world: World) -> None:
    world.seed(allocated=130, overdraft_limit=500)
    answer = world.api.commit(world.api.held(100, overage_policy=AWO), 200)
    assert answer.numbers == (-70, 0, 130, 70)
    assert answer.body["balances"][0]["debt"] == amount(70)
    assert answer.body["balances"][0]["overdraft_limit"] == amount(500)


def test_a_scope_without_overdraft_caps_the_others(world: World) -> None:
    world.seed(allocated=110, overdraft_limit=500)
    world.seed(CHILD, 130)
    answer = overrun(world, 100, 200, AWO)
    assert answer.body["charged"] == amount(130)
    assert shown(answer) == [(-20, 0, 110, 20), (0, 0, 130, 0)]
    assert (world.over_limit(), world.over_limit(CHILD)) == (False, True)


def test_the_limit_is_asked_for_the_capped_charge(world: World) -> None:
    world.seed(allocated=100, overdraft_limit=30)
    world.seed(CHILD, 130)
    assert overrun(world, 100, 500, AWO).body["charged"] == amount(130)
    world.seed(allocated=100, overdraft_limit=29)
    world.seed(CHILD, 130)
    assert overrun(world, 100, 500, AWO).outcome == (409, "OVERDRAFT_LIMIT_EXCEEDED")


def test_debt_that_is_above_its_limit_already_takes_no_more(world: World) -> None:
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


def test_event_under_reject(world: World) -> None:
    world.seed(CHILD, 99)
    assert world.api.event(100, subject=AT_CHILD, overage_policy="REJECT").outcome == (409, "BUDGET_EXCEEDED")
    assert world.numbers() == (1_000_000, 0, 0, 0)
    answer = world.api.event(99, subject=AT_CHILD, overage_policy="REJECT")
    assert (answer.status, shown(answer)) == (201, [(999_901, 0, 99, 0), (0, 0, 99, 0)])


def test_event_checks_each_scope_fully_before_the_next(world: World) -> None:
    world.seed(allocated=10)
    world.seed(CHILD, status="CLOSED")
    assert world.api.event(11, subject=AT_CHILD, overage_policy="REJECT").outcome == (409, "BUDGET_EXCEEDED")
    assert world.api.event(11, subject=AT_CHILD, overage_policy=AIA).outcome == (409, "BUDGET_CLOSED")


def test_event_if_available_charges_what_there_is_even_nothing(world: World) -> None:
    world.seed(allocated=30)
    answer = world.api.event(100)
    assert (answer.status, answer.body["charged"], answer.numbers) == (201, amount(30), (0, 0, 30, 0))
    again = world.api.event(100)
    assert (again.status, again.body["charged"]) == (201, amount(0))
    assert world.over_limit() is True


def test_event_with_overdraft(world: World) -> None:
    world.seed(allocated=30, overdraft_limit=70)
    answer = world.api.event(100, overage_policy=AWO)
    assert "charged" not in answer.body
    assert answer.numbers == (-70, 0, 30, 70)
    assert world.api.event(1, overage_policy=AWO).outcome == (409, "OVERDRAFT_LIMIT_EXCEEDED")
    assert world.api.event(0, overage_policy=AWO).status == 201


def test_event_capped_by_a_scope_without_overdraft(world: World) -> None:
    world.seed(allocated=50, overdraft_limit=100)
    world.seed(CHILD, 80)
    answer = world.api.event(100, subject=AT_CHILD, overage_policy=AWO)
    assert answer.body["charged"] == amount(80)
    assert shown(answer) == [(-30, 0, 50, 30), (0, 0, 80, 0)]
    assert (world.over_limit(), world.over_limit(CHILD)) == (False, True)


@pytest.mark.parametrize("blocked", [{"is_over_limit": True}, {"debt": 5}])
def test_neither_debt_nor_the_mark_blocks_an_event(world: World, blocked: dict[str, Any]) -> None:
    world.seed(**blocked)
    assert world.api.event(1).status == 201


def test_the_policy_of_an_event_is_that_of_its_time(world: World) -> None:
    world.seed(allocated=10)
    world.ledger.set_tenant("tenant-a", default_commit_overage_policy="REJECT")
    assert world.api.event(11).outcome == (409, "BUDGET_EXCEEDED")
    assert world.api.event(11, overage_policy=AIA).status == 201


@pytest.mark.parametrize("unit", ["USD_MICROCENTS", "CREDITS", "RISK_POINTS"])
def test_units_are_accounts_of_their_own(world: World, unit: str) -> None:
    world.seed(unit=unit, allocated=77)
    assert world.api.event(7, unit).numbers == (70, 0, 7, 0)
    assert world.numbers() == (1_000_000, 0, 0, 0)
