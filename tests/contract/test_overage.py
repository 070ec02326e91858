"""The three overage policies, on one scope and on several, for commits and for events."""

from __future__ import annotations

from typing import Any

import pytest

from .kit import Target, amount, numbers

A = "tenant:tenant-a"
CHILD = f"{A}/workspace:w"
AT_CHILD = {"tenant": "tenant-a", "workspace": "w"}
AIA, AWO = "ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT"


def overrun(target: Target, held: int, actual: int, policy: str) -> Any:
    """Commit more than the reserved amount, at the child."""
    return target.api.commit(target.api.held(held, subject=AT_CHILD, overage_policy=policy), actual)


def shown(response: Any) -> list[tuple[int, int, int, int]]:
    return [numbers(item) for item in response.body["balances"]]


def test_the_excess_is_charged_in_full_if_available(target: Target) -> None:
    for policy in (AIA, AWO):
        response = target.api.commit(target.api.held(100, overage_policy=policy), 150)
        assert response.body.keys() == {"status", "charged", "balances"}
        assert response.body["charged"] == amount(150)
    assert target.numbers() == (999_700, 0, 300, 0)


def test_if_available_is_capped_by_the_smallest_remainder(target: Target) -> None:
    target.seed(CHILD, 130)
    response = overrun(target, 100, 200, AIA)
    assert response.body["charged"] == amount(130)
    assert shown(response) == [(999_870, 0, 130, 0), (0, 0, 130, 0)]
    assert (target.over_limit(), target.over_limit(CHILD)) == (False, True)  # only the scope that was short


def test_if_available_flags_every_scope_that_was_short(target: Target) -> None:
    target.seed(allocated=150)
    target.seed(CHILD, 130)
    response = overrun(target, 100, 200, AIA)
    assert shown(response) == [(20, 0, 130, 0), (0, 0, 130, 0)]
    assert (target.over_limit(), target.over_limit(CHILD)) == (True, True)


def test_if_available_charges_nothing_from_a_negative_remainder(target: Target) -> None:
    rid = target.api.held(100, overage_policy=AIA)
    target.seed(allocated=100, debt=50, overdraft_limit=100)  # 100 held, 50 in debt
    assert target.numbers() == (-50, 100, 0, 50)
    response = target.api.commit(rid, 500)
    assert response.body["charged"] == amount(100)
    assert response.numbers == (-50, 0, 100, 50)
    assert target.over_limit() is True


def test_the_over_limit_flag_stays_until_funding(target: Target) -> None:
    target.seed(allocated=100)
    held = target.api.held(0)
    target.api.event(200, overage_policy=AIA)
    assert target.over_limit() is True
    target.api.release(held)
    assert target.over_limit() is True
    assert target.api.reserve(0).outcome == (409, "OVERDRAFT_LIMIT_EXCEEDED")
    from cycles._core.amounts import tokens

    target.ledger.fund(A, tokens(50))
    assert target.api.reserve(50).status == 200


def test_overdraft_is_allowed_up_to_its_limit(target: Target) -> None:
    target.seed(allocated=1000, overdraft_limit=500)
    first, second = (target.api.held(500, overage_policy=AWO) for _ in range(2))
    assert target.api.commit(first, 1001).outcome == (409, "OVERDRAFT_LIMIT_EXCEEDED")
    assert target.numbers() == (0, 1000, 0, 0)
    assert target.api.commit(first, 1000).numbers == (-500, 500, 500, 500)
    assert target.api.commit(second, 501).outcome == (409, "OVERDRAFT_LIMIT_EXCEEDED")
    assert target.api.commit(second, 500).numbers == (-500, 0, 1000, 500)
    assert target.over_limit() is False


def test_overdraft_uses_the_remaining_amount_first(target: Target) -> None:
    target.seed(allocated=130, overdraft_limit=500)
    response = target.api.commit(target.api.held(100, overage_policy=AWO), 200)
    assert response.numbers == (-70, 0, 130, 70)
    assert response.body["balances"][0]["debt"] == amount(70)
    assert response.body["balances"][0]["overdraft_limit"] == amount(500)


def test_a_scope_without_overdraft_caps_the_others(target: Target) -> None:
    target.seed(allocated=110, overdraft_limit=500)
    target.seed(CHILD, 130)
    response = overrun(target, 100, 200, AWO)
    assert response.body["charged"] == amount(130)
    assert shown(response) == [(-20, 0, 110, 20), (0, 0, 130, 0)]
    assert (target.over_limit(), target.over_limit(CHILD)) == (False, True)


def test_the_overdraft_limit_applies_to_the_capped_charge(target: Target) -> None:
    target.seed(allocated=100, overdraft_limit=30)
    target.seed(CHILD, 130)
    assert overrun(target, 100, 500, AWO).body["charged"] == amount(130)
    target.seed(allocated=100, overdraft_limit=29)
    target.seed(CHILD, 130)
    assert overrun(target, 100, 500, AWO).outcome == (409, "OVERDRAFT_LIMIT_EXCEEDED")


def test_debt_above_its_limit_cannot_grow(target: Target) -> None:
    rid = target.api.held(100, overage_policy=AWO)
    target.seed(allocated=100, debt=50, overdraft_limit=40)
    assert target.api.commit(rid, 101).outcome == (409, "OVERDRAFT_LIMIT_EXCEEDED")
    assert target.api.commit(rid, 100).status == 200


def test_release_never_repays_debt(target: Target) -> None:
    target.seed(allocated=1000, overdraft_limit=500)
    kept = target.api.held(500)
    target.api.event(600, overage_policy=AWO)
    assert target.numbers() == (-100, 500, 500, 100)
    assert target.api.release(kept).numbers == (400, 0, 500, 100)


# --- events -----------------------------------------------------------------------------------------------------------


def test_an_event_with_policy_reject(target: Target) -> None:
    target.seed(CHILD, 99)
    assert target.api.event(100, subject=AT_CHILD, overage_policy="REJECT").outcome == (409, "BUDGET_EXCEEDED")
    assert target.numbers() == (1_000_000, 0, 0, 0)
    response = target.api.event(99, subject=AT_CHILD, overage_policy="REJECT")
    assert (response.status, shown(response)) == (201, [(999_901, 0, 99, 0), (0, 0, 99, 0)])


def test_an_event_checks_each_scope_completely_before_the_next(target: Target) -> None:
    target.seed(allocated=10)
    target.seed(CHILD, status="CLOSED")
    assert target.api.event(11, subject=AT_CHILD, overage_policy="REJECT").outcome == (409, "BUDGET_EXCEEDED")
    assert target.api.event(11, subject=AT_CHILD, overage_policy=AIA).outcome == (409, "BUDGET_CLOSED")


def test_an_event_if_available_charges_what_remains(target: Target) -> None:
    target.seed(allocated=30)
    response = target.api.event(100)
    assert (response.status, response.body["charged"], response.numbers) == (201, amount(30), (0, 0, 30, 0))
    again = target.api.event(100)
    assert (again.status, again.body["charged"]) == (201, amount(0))
    assert target.over_limit() is True


def test_an_event_with_overdraft(target: Target) -> None:
    target.seed(allocated=30, overdraft_limit=70)
    response = target.api.event(100, overage_policy=AWO)
    assert "charged" not in response.body
    assert response.numbers == (-70, 0, 30, 70)
    assert target.api.event(1, overage_policy=AWO).outcome == (409, "OVERDRAFT_LIMIT_EXCEEDED")
    assert target.api.event(0, overage_policy=AWO).status == 201


def test_an_event_is_capped_by_a_scope_without_overdraft(target: Target) -> None:
    target.seed(allocated=50, overdraft_limit=100)
    target.seed(CHILD, 80)
    response = target.api.event(100, subject=AT_CHILD, overage_policy=AWO)
    assert response.body["charged"] == amount(80)
    assert shown(response) == [(-30, 0, 50, 30), (0, 0, 80, 0)]
    assert (target.over_limit(), target.over_limit(CHILD)) == (False, True)


@pytest.mark.parametrize("blocked", [{"is_over_limit": True}, {"debt": 5}])
def test_debt_and_the_over_limit_flag_do_not_block_an_event(target: Target, blocked: dict[str, Any]) -> None:
    target.seed(**blocked)
    assert target.api.event(1).status == 201


def test_an_event_uses_the_current_default_policy(target: Target) -> None:
    target.seed(allocated=10)
    target.ledger.set_tenant("tenant-a", default_commit_overage_policy="REJECT")
    assert target.api.event(11).outcome == (409, "BUDGET_EXCEEDED")
    assert target.api.event(11, overage_policy=AIA).status == 201


@pytest.mark.parametrize("unit", ["USD_MICROCENTS", "CREDITS", "RISK_POINTS"])
def test_units_are_separate_accounts(target: Target, unit: str) -> None:
    target.seed(unit=unit, allocated=77)
    assert target.api.event(7, unit).numbers == (70, 0, 7, 0)
    assert target.numbers() == (1_000_000, 0, 0, 0)
